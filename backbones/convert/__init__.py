"""Others' weights for our networks, and ours for theirs.

Every ``from_…`` takes the network that the weights are for, leaves it as it is and returns
``Weights`` for ``load_weights``, with the preprocessing and the stride position they were trained
with. Every ``to_…`` refuses a network that the other side would run differently. The
classification layer may be absent or have another number of classes on the way in; whether that is
wanted, ``load_weights(..., fresh=["fc"])`` says.
"""

from backbones.convert.caffe import from_caffe, to_caffe
from backbones.convert.detectron import (
    from_detectron,
    from_detectron2,
    to_detectron,
    to_detectron2,
)
from backbones.convert.huggingface import from_huggingface, to_huggingface
from backbones.convert.timm import from_timm, to_timm

__all__ = [
    "from_caffe",
    "from_detectron",
    "from_detectron2",
    "from_huggingface",
    "from_timm",
    "to_caffe",
    "to_detectron",
    "to_detectron2",
    "to_huggingface",
    "to_timm",
]
