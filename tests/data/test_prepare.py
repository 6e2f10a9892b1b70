"""Preparing a store: unusable videos, crashes, interruptions, full disks, and resuming."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import helpers
import stresnet.data.workers
from helpers.jpeg_source import write_jpegs
from helpers.tiny import Command
from helpers.video_files import encode
from helpers.video_kinds import textured, write_unreadable
from stresnet.data.catalog import Catalog, VideoRecord
from stresnet.data.datasets import read_catalog
from stresnet.data.prepare import PrepareSummary, prepare
from stresnet.data.store import Store, StoreSpec, video_path
from stresnet.data.workers import default_workers, usable_cores
from stresnet.errors import FlowSpecError, StoreError
from stresnet.flow.spec import FlowSpec
from stresnet.media import write_video

Report = tuple[str, int, int, str]
SPEC = StoreSpec(FlowSpec(preset="ultrafast", short_side=32))
GOOD = [f"{label}/Vidéo {n} & [{label}].mp4" for label in ("jump", "wave") for n in range(4)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return eight good videos in two classes, and a third class with a short, an invalid and an empty file."""
    root = tmp_path_factory.mktemp("source") / "Quelle mit Leerzeichen"
    for seed, name in enumerate([*GOOD, "bad/short.mp4"]):
        rng = np.random.default_rng(seed)
        frames = np.zeros((10 if "short" in name else 14, 48, 64, 3), np.uint8)
        for t, frame in enumerate(frames):
            x = 2 * t + seed
            frame[10:34, x : x + 20] = rng.integers(100, 255, 3, np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, frames, fps=20)
    (root / "bad/none.avi").write_text("not a video")
    (root / "bad/empty.avi").touch()
    return root


@pytest.fixture(scope="module")
def prepared(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareSummary, list[Report]]:
    store = tmp_path_factory.mktemp("prepared") / "a store"
    reports: list[Report] = []
    return (
        store,
        prepare(read_catalog(source), store, SPEC, workers=2, progress=lambda *report: reports.append(report)),
        reports,
    )


@pytest.fixture
def copy(prepared: tuple[Path, PrepareSummary, list[Report]], tmp_path: Path) -> Path:
    """Return a copy of the prepared store that a test may change."""
    shutil.copytree(prepared[0], tmp_path / "copy")
    return tmp_path / "copy"


def start(tmp_path: Path, mode: str, source: Path, kind: str = "videos") -> subprocess.Popen[str]:
    script = Path(helpers.__file__).with_name("prepare_script.py")
    command = [sys.executable, script, mode, source, tmp_path / "store", tmp_path / "log", kind]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def contents(store: Path) -> dict[str, bytes]:
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def half_written(store: Path) -> list[Path]:
    return [path for path in store.rglob(".*") if path.name != ".lock"]


def finished(store: Path) -> int:
    return sum(1 for path in store.rglob("*.arrow") if not path.name.startswith("."))


def test_good_and_bad_videos(prepared: tuple[Path, PrepareSummary, list[Report]], source: Path) -> None:
    root, summary, reports = prepared
    assert (summary.done, summary.kept, summary.frames) == (8, 0, 8 * 14)
    failed = dict(summary.failed)
    assert sorted(failed) == ["bad/empty.avi", "bad/none.avi", "bad/short.mp4"]
    assert failed["bad/short.mp4"] == "10 frames decoded; at least 11 needed"
    assert failed["bad/empty.avi"].startswith("the file is empty")
    assert "not a video" in failed["bad/none.avi"]
    assert summary.empty_classes == ("bad",)
    assert summary.truncated == ()
    store = Store.open(root)
    assert store.classes == ("bad", "jump", "wave")
    assert store.name == source.name
    assert [e.record.id for e in store.select()] == GOOD
    assert {e.record.id: e.reason for e in store.entries if e.reason} == failed
    assert summary.bytes == sum(path.stat().st_size for path in root.rglob("*.arrow"))
    for entry in store.select():
        prepared_video = store.video(entry.record.id)
        prepared_video.verify()
        assert prepared_video.meta.id == entry.record.id
        assert (entry.frames, entry.height, entry.width, entry.fps) == (14, 32, 43, 20.0)
    assert half_written(root) == []
    assert [report[:3] for report in reports] == [("preparing videos", done, 11) for done in range(12)]
    assert re.fullmatch(r"(\d+ frames/s, )?3 failed", reports[-1][3])


def test_each_video_that_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    (folder := tmp_path / "source" / "wave").mkdir(parents=True)
    encode(folder / "good.mp4", textured(12))
    reasons = write_unreadable(folder)
    summary = prepare(read_catalog(folder.parent), tmp_path / "store", SPEC, workers=1)
    assert summary.done == 1
    assert {name.removeprefix("wave/") for name, _ in summary.failed} == set(reasons)
    assert all(reasons[name.removeprefix("wave/")] in why and "\n" not in why for name, why in summary.failed)


def test_videos_with_much_clipped_flow_are_noted(tmp_path: Path, command: Command) -> None:
    texture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(texture, (0, 0), 2)
    for name, step in (("fast", 3), ("still", 0)):
        folder = tmp_path / "source" / name
        folder.mkdir(parents=True)
        write_video(folder / "one.mp4", (np.roll(picture, step * t, 1) for t in range(12)), fps=25)
    arguments = ("prepare", tmp_path / "source", tmp_path / "store", "--short-side", 64, "--bound", 1.5, "--workers", 1)
    for _ in range(2):  # kept videos are noted, too
        code, _, errors = command(*arguments)
        notes = [line for line in errors.splitlines() if "clipped at ±1.5 px/frame" in line]
        assert (code, len(notes)) == (0, 1)
        assert notes[0].startswith("note: fast/one.mp4: ")
    shares = {e.record.label: e.clipped_share for e in Store.open(tmp_path / "store").entries}
    assert shares["fast"] > 0.5
    assert shares["still"] == 0


def test_a_truncated_video_is_used_and_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    folder = tmp_path / "source" / "jump"
    folder.mkdir(parents=True)
    whole = encode(folder / "whole.mp4", list(noise), mux={"movflags": "faststart"}).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 3 // 10])
    for done, kept in ((2, 0), (0, 2)):
        summary = prepare(read_catalog(folder.parent), tmp_path / "store", SPEC, workers=1)
        assert (summary.done, summary.kept, summary.failed) == (done, kept, ())
        assert summary.truncated == ("jump/cut.mp4",)
        entries = Store.open(tmp_path / "store").entries
        assert [(e.record.id, e.truncated) for e in entries] == [("jump/cut.mp4", True), ("jump/whole.mp4", False)]
        assert 11 <= entries[0].frames < 30
        assert entries[1].frames == 60


@pytest.mark.parametrize(("platform", "cores", "expected"), [("win32", 96, 61), ("win32", 8, 8), ("linux", 96, 96)])
def test_default_workers(monkeypatch: pytest.MonkeyPatch, platform: str, cores: int, expected: int) -> None:
    assert usable_cores() >= 1
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        patch.setattr(stresnet.data.workers, "usable_cores", lambda: cores)
        found = default_workers()
    assert found == expected


KINDS = {
    "videos": (SPEC, False),
    "frames only": (replace(SPEC, flow_stored=False), False),
    "jpegs": (StoreSpec(FlowSpec(preset="ultrafast", short_side=48)), True),
}


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return folders of JPEGs: eight good videos under the same names, and two bad ones."""
    root = tmp_path_factory.mktemp("jpegs")
    for seed, name in enumerate([*GOOD, "bad/gap", "bad/no flow", "bad/none"]):
        folder = write_jpegs(root, name, "two roots", fields=0 if "flow" in name else 13, seed=seed)
        for path in folder.glob("*5.jpg" if "gap" in name else "*.jpg" if "none" in name else "nothing"):
            path.write_bytes(b"") if "none" in name else path.unlink()
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_can_be_resumed(source: Path, jpegs: Path, tmp_path: Path, kind: str) -> None:
    rng = random.Random(20161107)
    spec, from_jpegs = KINDS[kind]
    source = jpegs if from_jpegs else source
    run = start(tmp_path, "slow", source, kind)
    assert run.stdout is not None
    for _ in range(rng.randrange(5, 9)):
        run.stdout.readline()
    time.sleep(rng.uniform(0, 0.15))
    run.kill()
    run.communicate()
    store = tmp_path / "store"
    before = finished(store)
    assert 1 <= before < 8, "the run was killed too early or too late for this test"
    with pytest.raises(StoreError, match="preparing was not finished"):
        Store.open(store)
    workers = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert {torch for _, torch in workers} == {"False"}, "workers must not import torch"
    deadline = time.monotonic() + 10
    while any(alive(int(pid)) for pid, _ in workers):
        assert time.monotonic() < deadline, "workers outlive the process that started them"
        time.sleep(0.05)
    catalog = read_catalog(source, jpegs=from_jpegs)
    summary = prepare(catalog, store, spec, from_jpegs=from_jpegs, workers=2)
    assert summary.kept >= before
    assert summary.kept + summary.done == 8
    prepare(catalog, tmp_path / "uninterrupted", spec, from_jpegs=from_jpegs, workers=1)
    assert contents(store) == contents(tmp_path / "uninterrupted")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_stops_at_once_and_cleans_up(source: Path, jpegs: Path, tmp_path: Path, kind: str) -> None:
    run = start(tmp_path, "slow", jpegs if kind == "jpegs" else source, kind)
    assert run.stdout is not None
    for _ in range(6):
        run.stdout.readline()
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends it to every process of the command
    _, errors = run.communicate(timeout=60)
    assert run.returncode != 0
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    store = tmp_path / "store"
    assert 1 <= finished(store) < 8
    assert half_written(store) == []


@pytest.mark.parametrize("kind", ["videos", "jpegs"])
def test_a_video_that_crashes_its_worker(source: Path, jpegs: Path, tmp_path: Path, kind: str) -> None:
    run = start(tmp_path, "crash", jpegs if kind == "jpegs" else source, kind)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 0, errors
    store = Store.open(tmp_path / "store")
    reasons = {e.record.id: e.reason for e in store.entries if e.reason}
    died = [record_id for record_id, reason in reasons.items() if "its worker process died twice" in reason]
    assert died == [name for name in GOOD if "2" in name]
    assert len(store.select()) == 6
    assert half_written(store.root) == []


@pytest.mark.parametrize("kind", ["videos", "jpegs"])
def test_a_full_disk_stops_the_run(source: Path, jpegs: Path, tmp_path: Path, kind: str) -> None:
    run = start(tmp_path, "full", jpegs if kind == "jpegs" else source, kind)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 1, errors
    message = errors.splitlines()[-1]
    assert "cannot be written (No space left on device)" in message
    assert "finished videos are kept" in message
    store = tmp_path / "store"
    assert half_written(store) == []
    assert 1 <= finished(store) < 8


def test_a_script_without_main_guard_fails_with_one_line(source: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import stresnet.data.prepare as p\np.prepare({str(source)!r}, {str(tmp_path / 'store')!r})\n")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "StoreError: the worker processes cannot start" in run.stderr.splitlines()[-1]


def test_a_folder_of_videos_is_prepared_with_the_default_spec(source: Path, tmp_path: Path) -> None:
    summary = prepare(str(source), str(tmp_path / "store"), workers=1)
    assert (summary.done, len(summary.failed)) == (8, 3)
    store = Store.open(tmp_path / "store")
    assert store.spec == StoreSpec(FlowSpec())
    assert repr(store) == f"Store({str(tmp_path / 'store')!r}, 8 of 11 videos usable, 3 classes)"
    assert repr(summary).startswith("PrepareSummary(done=8, kept=0, failed=3, frames=112, seconds=")
    values = json.loads(json.dumps(summary.to_dict()))
    assert values["failed"] == dict(summary.failed)
    assert values["empty_classes"] == ["bad"]
    with pytest.raises(FlowSpecError, match="flow differs"):
        prepare(source, tmp_path / "store", FlowSpec("farneback"))
    with pytest.raises(StoreError, match="importing JPEGs needs a spec"):
        prepare(source, tmp_path / "jpegs", from_jpegs=True)


def test_another_split_only_rewrites_the_index(copy: Path, source: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.arrow")}
    catalog = good_only(read_catalog(source))
    records = tuple(replace(r, split="test" if "3" in r.id else "train", group=r.id[-9:]) for r in catalog.records)
    summary = prepare(Catalog("other", ("wave", "jump"), records), copy, SPEC, workers=1)
    assert (summary.done, summary.kept, summary.failed) == (0, 8, ())
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*.arrow")} == before
    store = Store.open(copy)
    assert (store.name, store.classes) == ("other", ("wave", "jump"))
    assert [e.record.id for e in store.select("test")] == [name for name in GOOD if "3" in name]


def good_only(catalog: Catalog) -> Catalog:
    records = tuple(r for r in catalog.records if r.label != "bad")
    return Catalog(catalog.name, ("jump", "wave"), records)


def change_a_pixel(path: Path) -> None:
    """Change the content of a video, but neither its size nor its time of modification."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[content.index(b"mdat") + 2000] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_only_changed_or_damaged_videos_are_prepared_again(
    copy: Path, prepared: tuple[Path, PrepareSummary, list[Report]], source: Path, tmp_path: Path
) -> None:
    catalog = good_only(read_catalog(source))
    changed, damaged, gone, touched = (tmp_path / f"{name}.mp4" for name in ("changed", "damaged", "gone", "touched"))
    shutil.copy2(catalog.records[0].path, changed)
    change_a_pixel(changed)
    shutil.copy2(catalog.records[1].path, damaged)
    video_path(copy, catalog.records[1].id).write_bytes(b"ARROW1")
    shutil.copyfile(catalog.records[3].path, touched)
    os.utime(touched, ns=(1, 1))
    paths = [str(changed), str(damaged), str(gone), str(touched), *(r.path for r in catalog.records[4:])]
    records = tuple(replace(r, path=path) for r, path in zip(catalog.records, paths, strict=True))
    missing = VideoRecord("jump/never there.mp4", str(tmp_path / "never there.mp4"), "jump")
    summary = prepare(Catalog(catalog.name, catalog.classes, (*records, missing)), copy, SPEC, workers=1)
    assert (summary.done, summary.kept) == (2, 6)
    assert summary.failed == ((missing.id, "no such file; check its name"),)
    store = Store.open(copy)
    old, new = (Store.open(folder).entries.find(records[0].id) for folder in (prepared[0], copy))
    assert old is not None
    assert new is not None
    assert old.content != new.content
    for entry in store.select():
        store.video(entry.record.id).verify()


def test_another_spec_is_rejected_with_both_named(copy: Path, source: Path) -> None:
    before = contents(copy)
    other = StoreSpec(FlowSpec(preset="fast", short_side=64))
    with pytest.raises(FlowSpecError) as error:
        prepare(read_catalog(source), copy, other)
    for spec in (SPEC, other):
        assert str(spec.flow) in str(error.value)
    with pytest.raises(StoreError, match="expected jpeg_quality 95, found 90"):
        prepare(read_catalog(source), copy, StoreSpec(SPEC.flow, 90))
    assert contents(copy) == before


def test_only_unfinished_files_are_removed(copy: Path, source: Path) -> None:
    stale = copy / "videos" / "jump" / ".x.mp4.4242.tmp.arrow"
    stale.touch()
    kept = copy / "videos" / "jump" / ".mine.tmp.txt"
    kept.touch()
    prepare(good_only(read_catalog(source)), copy, SPEC, workers=1)
    assert not stale.exists()
    assert kept.exists()


def test_folders_that_cannot_become_a_store(source: Path, tmp_path: Path, copy: Path) -> None:
    catalog = read_catalog(source)
    with pytest.raises(StoreError, match="must be a new or empty folder, or an existing store, but contains bad"):
        prepare(catalog, source, SPEC)
    (source / ".lock").unlink()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StoreError, match="found a file"):
        prepare(catalog, file, SPEC)
    with pytest.raises(StoreError, match="workers must be at least 1, not 0"):
        prepare(catalog, tmp_path / "new", SPEC, workers=0)
    assert not (tmp_path / "new").exists()


def test_two_runs_at_once_are_rejected(copy: Path, source: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with (copy / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="another run is preparing this store"):
            prepare(good_only(read_catalog(source)), copy, SPEC)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(source: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\)"):
            prepare(read_catalog(source), tmp_path / "store", SPEC)
    finally:
        tmp_path.chmod(0o700)
