"""Fetches the jars of a component once, with the Ivy that PySpark ships, and checks each against a committed SHA-256.

`ivy/<component>.xml` lists them, `ivy/<component>.sha256` says what they must be.
They lie in `<state>/jars/<component>/`.
"""

import fcntl
import hashlib
import importlib.util
import re
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from cryptography.utils import CryptographyDeprecationWarning

from core.errors import BlockedError, DamagedError, RefusedError
from ops.java import Java

COMPONENTS = ("cassandra", "kafka", "mirror", "lake")
Say = Callable[[str], None]

_IVY = Path(__file__).parent / "ivy"
_MAVEN = "http://ant.apache.org/ivy/maven"
_PATTERN = "[artifact]-[revision](-[classifier]).[ext]"
_NAMED = 5
_STORE_PASSWORD = "public"  # it holds certificates only


def directory(state_dir: Path, component: str) -> Path:
    return state_dir / "jars" / component


def class_path(state_dir: Path, *components: str) -> str:
    """For `java -cp`; the JVM expands the stars."""
    return ":".join(f"{directory(state_dir, component)}/*" for component in components)


def paths(state_dir: Path, component: str) -> tuple[Path, ...]:
    return tuple(directory(state_dir, component) / name for name in expected(component))


def expected(component: str) -> dict[str, str]:
    """File name → SHA-256 in hex."""
    if component not in COMPONENTS:
        raise RefusedError(f"{component!r} has no list of jars", f"name one of {', '.join(COMPONENTS)}")
    lines = (_IVY / f"{component}.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def fetch(component: str, state_dir: Path, java: Java, say: Say) -> Path:
    """The directory that holds exactly the listed jars; starts no JVM when they are all there and right.

    Raises BlockedError when some cannot be downloaded (what came is kept) and DamagedError for a jar that is not what
    it should be (which is removed, so that the next try fetches it anew).
    """
    wanted, target = expected(component), directory(state_dir, component)
    target.mkdir(parents=True, exist_ok=True)
    with _alone(target.with_suffix(".lock")):
        if _stamp(target, wanted) == _remembered(target):
            return target
        _discard_damaged(component, target, wanted)
        missing = {name: digest for name, digest in wanted.items() if not (target / name).exists()}
        if missing:
            _download(component, state_dir, java, missing, say)
        for stray in set(target.glob("*.jar")) - {target / name for name in wanted}:
            stray.unlink()
        _stamp_file(target).write_text(_stamp(target, wanted))
    return target


def _download(component: str, state_dir: Path, java: Java, missing: dict[str, str], say: Say) -> None:
    work, target = state_dir / "ivy" / component, directory(state_dir, component)
    staged = work / "staged"
    shutil.rmtree(staged, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    module = work / "ivy.xml"
    module.write_text(narrowed((_IVY / f"{component}.xml").read_text(), missing))
    say(f"{component}: fetching {len(missing)} jars (once)")
    last_line = _run_ivy(component, java, work, len(missing), say)
    arrived = [name for name in missing if (staged / name).exists()]
    damaged = [name for name in arrived if _digest(staged / name) != missing[name]]
    for name in set(arrived) - set(damaged):
        (staged / name).replace(target / name)
    if damaged:
        shutil.rmtree(work)
        raise _damaged(component, damaged)
    if absent := sorted(set(missing) - set(arrived)):
        raise BlockedError(
            f"{component}: {len(absent)} of {len(missing)} jars could not be downloaded: {_some(absent)} ({last_line})",
            "check the network and run the same command again: what has come is kept. "
            "Behind a proxy, set JAVA_TOOL_OPTIONS='-Dhttps.proxyHost=… -Dhttps.proxyPort=…'",
        )
    shutil.rmtree(work)


def narrowed(module: str, names: Iterable[str]) -> str:
    """The Ivy file with only those dependencies that bring one of `names`."""
    ElementTree.register_namespace("m", _MAVEN)
    root = ElementTree.fromstring(module)
    wanted, listed = set(names), root.find("dependencies")
    assert listed is not None
    for dependency in list(listed):
        if not wanted & set(file_names(dependency)):
            listed.remove(dependency)
    return ElementTree.tostring(root, encoding="unicode")


def file_names(dependency: ElementTree.Element) -> list[str]:
    """As Ivy names them when it retrieves: one, or one per classifier."""
    stem = f"{dependency.get('name')}-{dependency.get('rev')}"
    classifiers = [artifact.get(f"{{{_MAVEN}}}classifier") for artifact in dependency.findall("artifact")] or [None]
    return [f"{stem}-{classifier}.jar" if classifier else f"{stem}.jar" for classifier in classifiers]


def _run_ivy(component: str, java: Java, work: Path, total: int, say: Say) -> str:
    """Passes on progress; the last complaint of Ivy, or an empty string."""
    command = [
        java.command,
        f"-Duser.home={work}",
        f"-Divy.default.ivy.user.dir={work / 'home'}",
        *(_trust(work / "trust.p12") if java.bundled else ()),
        *("-jar", str(_ivy_jar())),
        *("-settings", str(_IVY / "settings.xml")),
        *("-ivy", str(work / "ivy.xml")),
        *("-cache", str(work / "cache")),
        *("-retrieve", str(work / "staged" / _PATTERN)),
        *("-confs", "default"),
    ]
    done, complaint = 0, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ivy:
        assert ivy.stdout is not None
        for line in ivy.stdout:
            if "[SUCCESSFUL ]" in line:
                done += 1
                if done % 10 == 0 or done == total:
                    say(f"{component}: {done} of {total} jars")
            elif any(word in line for word in ("ERROR", "UnknownHost", "FAILED", "Exception")):
                complaint = line.strip()
    return complaint or ("" if ivy.returncode == 0 else f"Ivy ended with {ivy.returncode}")


def _trust(store: Path) -> tuple[str, ...]:
    """Lets the bundled Java trust whom the machine trusts: many networks have an authority of their own."""
    bundle = ssl.get_default_verify_paths().cafile
    if bundle is None:
        return ()
    entries = [
        pkcs12.PKCS12Certificate(one, str(index).encode())
        for index, one in enumerate(_certificates(Path(bundle).read_bytes()))
    ]
    sealing = BestAvailableEncryption(_STORE_PASSWORD.encode())
    store.write_bytes(pkcs12.serialize_java_truststore(entries, sealing))
    return (f"-Djavax.net.ssl.trustStore={store}", f"-Djavax.net.ssl.trustStorePassword={_STORE_PASSWORD}")


def _certificates(bundle: bytes) -> Iterator[x509.Certificate]:
    """Leaves out what does not parse: system bundles hold an old oddity or two."""
    for block in re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", bundle, re.DOTALL):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", CryptographyDeprecationWarning)
                certificate = x509.load_pem_x509_certificate(block)
        except (ValueError, CryptographyDeprecationWarning):
            continue
        yield certificate


def _ivy_jar() -> Path:
    spec = importlib.util.find_spec("pyspark")
    found = sorted((Path(spec.origin).parent / "jars").glob("ivy-*.jar")) if spec and spec.origin else []
    if not found:
        raise BlockedError("PySpark's Ivy is not there to fetch the jars with", "delete .venv and run ./firn again")
    return found[-1]


def _discard_damaged(component: str, target: Path, wanted: dict[str, str]) -> None:
    damaged = [name for name, digest in wanted.items() if (target / name).exists() and _digest(target / name) != digest]
    for name in damaged:
        (target / name).unlink()
    if damaged:
        raise _damaged(component, damaged)


def _damaged(component: str, names: list[str]) -> DamagedError:
    return DamagedError(
        f"{component}: not the bytes that were listed (SHA-256): {_some(names)}; removed",
        "run the same command again: it fetches them anew",
    )


def _some(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp_file(target: Path) -> Path:
    return target / ".stamp"


def _remembered(target: Path) -> str:
    return _stamp_file(target).read_text() if _stamp_file(target).exists() else ""


def _stamp(target: Path, wanted: dict[str, str]) -> str:
    """Changes when the list does or when any file was touched: cheaper than to read 60 MB at each start."""
    facts = [f"{name} {digest}" for name, digest in sorted(wanted.items())]
    for jar in sorted(target.glob("*.jar")):
        status = jar.stat()
        facts.append(f"{jar.name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
