"""What the local stack must keep to itself: made once, below the state directory, readable by its owner alone."""

import base64
import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from core.settings import VAULT_KEY_FILE, Settings

KEY_BYTES = 32


def make_vault_key(settings: Settings) -> None:
    """The key that wraps the person keys of the local regions; without it nothing frozen can ever be read again."""
    if not settings.vault.wrapping_key:
        made_once(
            settings.state_dir / VAULT_KEY_FILE, lambda: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        )


def made_once(path: Path, make: Callable[[], str]) -> str:
    """Two processes that come at once end with the same secret: a link is made once and whole."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # the other process was first
            os.link(draft, path)
        draft.unlink()
    return path.read_text()
