"""The sharing out of groups to folds, against small cases by hand."""

from __future__ import annotations

from stresnet.data.folds import split_groups


def test_groups_go_to_the_fold_with_the_fewest_videos_of_their_labels() -> None:
    videos = [*[("run", "a")] * 3, *[("run", "b")] * 2, *[("wave", "c")] * 2, ("run", "d"), ("wave", "d")]
    # a (3 run) opens fold 0; b (run) goes to 1, c (wave: none in either, 1 is smaller) to 1, and d (1 run + 1 wave)
    # meets 3 runs in fold 0 against 2 runs and 2 waves in fold 1.
    assert split_groups(videos, 2) == [("a", "d"), ("b", "c")]


def test_every_group_is_in_one_fold_and_folds_have_similar_sizes() -> None:
    videos = [(f"class {i % 3}", f"group {i % 20:02d}") for i in range(300)]
    folds = split_groups(videos, 4)
    assert sorted(group for fold in folds for group in fold) == sorted({group for _, group in videos})
    assert {len(fold) for fold in folds} == {5}


def test_the_order_of_videos_does_not_matter() -> None:
    videos = [(f"class {i % 3}", f"group {i % 7}") for i in range(60)]
    assert split_groups(videos, 3) == split_groups(videos[::-1], 3)
