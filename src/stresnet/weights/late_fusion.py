"""Late fusion as a model: one network of two streams that were trained separately."""

from __future__ import annotations

from stresnet.errors import CheckpointError
from stresnet.model import Checkpoint, STResNet
from stresnet.model.checkpoint import transfer_weights


def fuse_streams(appearance: Checkpoint, motion: Checkpoint) -> Checkpoint:
    """Return a network of both streams, without links, whose fused logits are the mean of those of the two models.

    The rest of the metadata is that of the motion model.

    Args:
        appearance: a network with an appearance stream alone.
        motion: a network with a motion stream alone.

    Raises:
        CheckpointError: a model has other streams, or the two differ in classes, in how they read videos, or in their
            architecture other than depth and dropout.
    """
    for checkpoint, stream in ((appearance, "appearance"), (motion, "motion")):
        if checkpoint.model.config.streams != (stream,):
            found = " and ".join(checkpoint.model.config.streams)
            raise CheckpointError(f"expected a model of the {stream} stream alone, found one of {found}")
    own, other = appearance.model.config, motion.model.config
    config = own.replace(
        streams=("appearance", "motion"),
        motion_depth=other.depth_of("motion"),
        motion_dropout=other.dropout_of("motion"),
        motion_temporal_layers=other.temporal_layers_of("motion") if other.temporal else None,
    )
    _require_same("classes", appearance.classes, motion.classes)
    _require_same("preparation of videos", appearance.store_spec, motion.store_spec)
    _require_same("crops", _crops(appearance), _crops(motion))
    model = STResNet(config)
    try:
        transfer_weights(model, [appearance.model.state_dict(), motion.model.state_dict()])
    except CheckpointError as error:
        raise CheckpointError(f"the two models cannot be one network: {error}") from None
    return motion.replace(
        model=model.eval(),
        preprocessing=motion.preprocessing.with_levels_of(rgb=appearance.preprocessing, flow=motion.preprocessing),
        trained_on=tuple(sorted({*appearance.trained_on, *motion.trained_on})),
        test_groups=tuple(sorted({*appearance.test_groups} & {*motion.test_groups})),
        training={},
        scores=(),
    )


def _crops(checkpoint: Checkpoint) -> tuple[int, bool]:
    return checkpoint.preprocessing.crop_px, checkpoint.preprocessing.mirror


def _require_same(what: str, appearance: object, motion: object) -> None:
    if appearance != motion:
        raise CheckpointError(f"expected two models of the same {what}: train both on one store with one recipe")
