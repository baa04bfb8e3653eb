"""Checks of files of plain values (JSON), made when they are read, so that an error names the file and the key."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

_MOST_SHOWN = 3


class Form(BaseModel):
    """The keys that a file must have, and the types of their values. Numbers must be finite; other keys are allowed."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def fitting(content: Any, form: type[Form], path: Path) -> dict[str, Any]:
    """Return the content if it has that form.

    Raises:
        ValueError: naming the file, the keys and what they hold.
    """
    try:
        form.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        shown = [
            f"{'.'.join(map(str, each['loc'])) or 'the file'} (={each['input']!r:.60}): {each['msg']}"
            for each in found[:_MOST_SHOWN]
        ]
        more = f"; and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        raise ValueError(f"{path}: {'; '.join(shown)}{more}. Restore the file, or write it again.") from error
    return content
