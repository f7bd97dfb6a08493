"""Our networks in other libraries' detection code; nothing here is imported before it is asked for.

One module a library: ``torchvision``, ``timm``, ``huggingface``, ``detectron2``, ``mmdetection``.
"""
