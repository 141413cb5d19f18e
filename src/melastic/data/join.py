"""One manifest of several."""

import os
from collections.abc import Sequence
from pathlib import Path

from melastic.data.manifest import LABEL_SEPARATOR, read_manifest, select, write_manifest
from melastic.errors import InputError

SET = "set"
"""Column that says which manifest a clip is from."""


def joined(manifests: Sequence[Path], rules: Sequence[str], out: Path) -> int:
    """Write the clips of several manifests to one, with all their columns.

    Labels are kept, clips without any included; paths become relative to the new manifest.

    Args:
        manifests: CSV or JSON.
        rules: which clips of each, as :func:`~melastic.data.manifest.select` reads it.
        out: the new manifest.

    Returns:
        How many clips it lists.

    Raises:
        InputError: if there are not as many rules as manifests, two have the same name, one cannot
            be read, has a column ``set`` or would be overwritten.
    """
    names = [path.stem for path in manifests]
    if len(rules) != len(manifests):
        raise InputError(
            f"--select takes one rule for each of {len(manifests)} manifests, got {len(rules)}; "
            "'all' names every clip"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"the names of manifests tell clips apart, {twice} is there twice; rename one"
        )
    if out.resolve() in {path.resolve() for path in manifests}:
        raise InputError(f"{out}: is one of the manifests that are joined; name another file")
    rows: list[dict[str, object]] = []
    for path, name, rule in zip(manifests, names, rules, strict=True):
        clips = read_manifest(path, labelled=False)
        if any(SET in clip.columns for clip in clips):
            raise InputError(
                f"{path}: its column '{SET}' would be replaced by the names of the manifests; "
                "rename it"
            )
        for clip in select(clips, rule):
            rows.append(
                {
                    "file": os.path.relpath(
                        clip.path.parent.resolve() / clip.path.name, out.parent.resolve()
                    ),
                    "label": LABEL_SEPARATOR.join(clip.labels),
                    "start_s": repr(clip.start_s) if clip.start_s else "",
                    "end_s": "" if clip.end_s is None else repr(clip.end_s),
                    SET: name,
                    **clip.columns,
                }
            )
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_manifest(out, [{key: row.get(key, "") for key in columns} for row in rows])
    return len(rows)
