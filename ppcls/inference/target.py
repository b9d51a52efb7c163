"""A folder that is written beside its place and moved there when it is whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppcls.errors import UserError
from ppcls.inference import folder, manifest


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A folder to write `output`'s files into; they replace an earlier export when all went well.

    Raises:
        UserError: `output` is something else than an exported folder, or cannot be written.
    """
    if output.exists() and not (output.is_dir() and (is_export(output) or is_rest(output))):
        raise UserError(f"{output} exists and is no exported folder; --output FOLDER")
    temporary = output.with_name(output.name + ".incomplete")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        move(temporary, output)
    except OSError as error:
        raise UserError(
            f"{output}: cannot be written ({error.strerror}); --output FOLDER"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_export(output: Path) -> bool:
    return (output / manifest.FILE).exists()


def is_rest(output: Path) -> bool:
    """Whether nothing but an export's files is there: one was killed while it was replaced."""
    own = {path.name for path in folder.network_files(output)} | {folder.CACHE}
    return all(path.name in own for path in output.iterdir())


def move(temporary: Path, output: Path) -> None:
    """Replace an export's files; the manifest, without which it is none, goes first, comes last."""
    output.mkdir(exist_ok=True)
    (output / manifest.FILE).unlink(missing_ok=True)
    shutil.rmtree(output / folder.CACHE, ignore_errors=True)
    for old in folder.network_files(output):
        old.unlink()
    for file in sorted(temporary.iterdir(), key=lambda file: file.name == manifest.FILE):
        file.replace(output / file.name)


def sizes(temporary: Path) -> dict[str, int]:
    """Bytes of the network's files, by name."""
    return {path.name: path.stat().st_size for path in folder.network_files(temporary)}
