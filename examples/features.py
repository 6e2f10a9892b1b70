"""Features of videos: nearest neighbours, and a linear probe. First write them, with a label in each file's folder:

stresnet predict run/ videos/ --embed features.parquet
python examples/features.py features.parquet
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq
import torch

rows = pq.read_table(sys.argv[1]).to_pylist()
labels = [Path(row["video"]).parent.name for row in rows]
features = torch.tensor([row.get("appearance", []) + row.get("motion", []) for row in rows])

# Nearest neighbours by the angle between features; a video is not its own neighbour.
directions = torch.nn.functional.normalize(features - features.mean(0))
nearest = (directions @ directions.T).fill_diagonal_(-1).argmax(1).tolist()
print(
    f"nearest neighbour of the same class: {sum(labels[i] == labels[k] for i, k in enumerate(nearest))} of {len(rows)}"
)

# A linear probe: ridge regression onto the classes, trained on every other video and tested on the rest.
targets = torch.tensor([[float(label == name) for name in sorted(set(labels))] for label in labels])
x, y = directions[::2], targets[::2]
weight = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1]), x.T @ y)
right = ((directions[1::2] @ weight).argmax(1) == targets[1::2].argmax(1)).sum().item()
print(f"linear probe: {right} of {len(directions[1::2])}")
