"""The authors' released files (MatConvNet, DagNN) in, and ours out for their toolbox.

dagnn    the .mat format: layers, parameters and meta as plain Python values
graph    the layers of an STResNet as a DagNN, and where each parameter lies in the state dict
values   parameters from the one's shapes and meanings to the other's
order    what the logits depend on, in an order of execution
guess    which config a file may be
match    whether it is, layer by layer
meta     normalisation and class names
own      what of our checkpoints a DagNN cannot hold
read, write
"""

from stresnet.weights.matconvnet.read import Imported, read_matconvnet
from stresnet.weights.matconvnet.write import write_matconvnet

__all__ = ["Imported", "read_matconvnet", "write_matconvnet"]
