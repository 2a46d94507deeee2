"""Compiled code is kept where nobody else may write, and its absence stops nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.compiled import private_scratch

ROOT = Path(__file__).parents[3]
DECODE = """
import sys
sys.path[:0] = [{code!r}, {root!r}]
from stores import kernels
assert kernels.__file__.startswith({code!r}), kernels.__file__
import numpy as np
assert kernels.lz4_size(np.frombuffer(b"\\x10a", np.uint8)) == 1
print(sum(kernels.lz4_size.stats.cache_hits.values()), kernels.lz4_size.stats.cache_path)
"""


def test_a_folder_of_ones_own_is_made_and_found_again(tmp_path: Path) -> None:
    place = private_scratch(tmp_path)
    assert place is not None
    assert (place.stat().st_mode & 0o777, private_scratch(tmp_path)) == (0o700, place)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path: Path, mode: int) -> None:
    place = private_scratch(tmp_path)
    assert place is not None
    place.chmod(mode)
    assert private_scratch(tmp_path) is None


def test_what_is_no_folder_of_ours_is_not_trusted(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / f"firn-kernels-{os.getuid()}").symlink_to(elsewhere)
    assert private_scratch(tmp_path) is None
    assert private_scratch(tmp_path / "absent") is None


def test_a_worker_without_a_place_of_its_own_pays_once(tmp_path: Path) -> None:
    """The code in a folder that cannot be written, no home: the second process finds what the first compiled."""
    code, scratch = tmp_path / "code", tmp_path / "scratch"
    for package, module in (("core", "compiled.py"), ("stores", "kernels.py")):
        (code / package).mkdir(parents=True)
        (code / package / "__init__.py").touch()
        (code / package / module).write_bytes((ROOT / package / module).read_bytes())
    scratch.mkdir()
    (code / "stores" / "__pycache__").touch()  # a file where the folder should be: root may write anywhere else
    first, second = (decode(code, scratch) for _ in range(2))
    assert first[0] == "0"
    assert second[0] == "1"
    assert Path(second[1]).is_relative_to(scratch / f"firn-kernels-{os.getuid()}")


def decode(code: Path, scratch: Path) -> list[str]:
    unset = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HOME": os.devnull, "TMPDIR": str(scratch)}
    script = DECODE.format(code=str(code), root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout.split(maxsplit=1)
