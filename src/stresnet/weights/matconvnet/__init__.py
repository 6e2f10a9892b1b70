"""Import the networks that the authors released as MatConvNet files (DagNN saved by MATLAB).

mat5           read MATLAB's format 5 into plain Python values
dagnn          read a DagNN: its layers, parameters and metadata
topology       keep the layers that the logits depend on, in order of execution
config         infer the network's config from its layers
graph          build the layers and parameters of an STResNet as a DagNN
verify         compare a file with that graph, layer by layer
parameters     convert parameter values to state-dict entries
normalization  convert the file's pixel normalisation and class names
read           all of the above
"""

from stresnet.weights.matconvnet.read import Imported, read_matconvnet

__all__ = ["Imported", "read_matconvnet"]
