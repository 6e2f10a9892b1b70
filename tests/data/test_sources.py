"""What files, folders, patterns, lists and URLs name."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresnet.data.segment import Segment
from stresnet.data.sources import NamedVideo, named_videos


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with empty files, which is the current one."""
    folder = tmp_path / "videos"
    for name in ("b.mp4", "a.avi", "deep/er/c.MKV", "deep/notes.md", ".hidden.mp4", "odd [1].mp4", "[x].mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    monkeypatch.chdir(tmp_path)
    return folder


def names(*sources: str) -> list[str]:
    found = named_videos(sources, [])
    assert not any(video.problem for video in found)
    return [video.name for video in found]


def test_a_file_is_itself_whatever_its_name(videos: Path) -> None:
    assert names("videos/b.mp4", "videos/[x].mp4", "videos/deep/notes.md", "videos/gone.mp4") == [
        *("videos/b.mp4", "videos/[x].mp4", "videos/deep/notes.md"),
        "videos/gone.mp4",  # reading it will say so
    ]


def test_a_folder_stands_for_all_videos_below(videos: Path) -> None:
    notes: list[str] = []
    found = named_videos(["videos"], notes)
    assert [video.name for video in found] == [
        f"videos/{name}" for name in ("[x].mp4", "a.avi", "b.mp4", "deep/er/c.MKV", "odd [1].mp4")
    ]
    assert notes == ["videos: 1 file(s) that are not videos are left out, such as 'deep/notes.md'"]
    (videos / "empty").mkdir()
    assert named_videos(["videos/empty"], []) == [
        NamedVideo("videos/empty", "videos/empty: expected videos in this folder, found none")
    ]


def test_a_pattern_stands_for_the_files_that_match(videos: Path) -> None:
    assert names("videos/*.mp4") == ["videos/[x].mp4", "videos/b.mp4", "videos/odd [1].mp4"]
    assert names("videos/**/*.MKV", "videos/?.avi") == ["videos/deep/er/c.MKV", "videos/a.avi"]
    (failed,) = named_videos(["videos/*.webm"], [])
    assert failed.problem == "videos/*.webm: no file has a name of this pattern"


def test_a_list_names_videos_relative_to_itself(videos: Path) -> None:
    (videos / "some.csv").write_text(
        "path,label\nB.MP4,jump\ndeep/er/c.MKV,run\ngone.avi,run\nhttps://x.org/d.mp4,run\n"
    )
    assert named_videos(["videos/some.csv"], []) == [
        NamedVideo(str(videos.relative_to(videos.parent) / "b.mp4")),
        NamedVideo(str(videos.relative_to(videos.parent) / "deep/er/c.MKV")),
        NamedVideo("gone.avi", "videos/some.csv, line 4: no such file; check its name"),
        NamedVideo("https://x.org/d.mp4"),
    ]
    (videos / "plain.txt").write_text("a.avi\nb.mp4\n")
    assert [Path(name).name for name in names("videos/plain.txt")] == ["a.avi", "b.mp4"]
    (videos / "empty.txt").write_text("")
    (failed,) = named_videos(["videos/empty.txt"], [])
    assert failed.problem == "videos/empty.txt: expected one row per video, found an empty file"


def test_segments_of_files_and_lists(videos: Path) -> None:
    part = Segment(1, 2.5)
    found = named_videos(["videos/b.mp4", "videos/b.mp4#t=3,4", "videos/*.avi", "https://x.org/a.mp4"], [], part)
    assert [video.name for video in found] == [
        *("videos/b.mp4#t=1,2.5", "videos/b.mp4#t=3,4", "videos/a.avi#t=1,2.5", "https://x.org/a.mp4#t=1,2.5"),
    ]
    (videos / "cut.csv").write_text("path,start,end\na.avi,0.5,1\nb.mp4,,\na.avi,7,3\n")
    *found, wrong = named_videos(["videos/cut.csv"], [], part)
    assert [Path(video.name).name for video in found] == ["a.avi#t=0.5,1", "b.mp4#t=1,2.5"]
    assert wrong.problem == "videos/cut.csv, line 4: expected a start before the end, found 7 and 3"


def test_urls_are_not_patterns() -> None:
    assert names("https://x.org/a.mp4?size=[1]", "s3://bucket/*.mp4") == [
        "https://x.org/a.mp4?size=[1]",
        "s3://bucket/*.mp4",
    ]
