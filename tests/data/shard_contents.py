"""What shards hold, and what is said where they cannot be opened."""

import pytest

from ppcls.data import decode
from ppcls.utils.errors import UserError


def message(function, *arguments, **options):
    """The text of the UserError that the function raises."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    return str(caught.value)


def contents(samples):
    """Images' bytes with their class names, whatever the order."""
    pairs = zip(samples.paths, range(len(samples)), strict=True)
    return sorted((decode.read_bytes(path), samples.label_of(i)) for path, i in pairs)
