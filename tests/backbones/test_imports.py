import subprocess
import sys


def test_the_library_stays_light_and_knows_nothing_of_detection():
    forbidden = ["pytorch_lightning", "lightning", "albumentations", "pycocotools", "detection"]
    code = f"import sys, backbones; print([m for m in {forbidden} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_exist():
    import backbones

    assert all(hasattr(backbones, name) for name in backbones.__all__)
