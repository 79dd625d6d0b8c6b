"""The rows of a document as CSV, JSON and Parquet. Figures are not rounded, and have their unit in the name."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from zoo_bench import __version__
from zoo_bench.errors import ConfigError
from zoo_bench.export.fields import FIELDS, Kind, Value, flat, heading
from zoo_bench.render import Content

if TYPE_CHECKING:
    import pyarrow as pa

# What a spreadsheet would take for a formula, of any width.
FORMULA = ("=", "+", "-", "@", "\t", "＝", "＋", "－", "＠")  # noqa: RUF001 - the wide ones are meant


def as_csv(content: Content) -> str:
    """Return CSV: a line of names, then a line a row; several texts of one value are joined by semicolons.

    Text that a spreadsheet would take for a formula begins with an apostrophe, as the OWASP advises.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in FIELDS], lineterminator="\n")
    writer.writeheader()
    for row in flat(content):
        writer.writerow({name: _in_csv(value) for name, value in row.items()})
    return stream.getvalue()


def _in_csv(value: Value) -> str | int | float | None:
    text = "; ".join(value) if isinstance(value, tuple) else value
    return f"'{text}" if isinstance(text, str) and text.startswith(FORMULA) else text


def as_json(content: Content) -> str:
    """Return JSON: what the document is, what each column means, and the rows."""
    whole = {
        "zoo_bench": __version__,
        **heading(content),
        "columns": {field.name: field.about for field in FIELDS},
        "rows": flat(content),
    }
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def as_parquet(content: Content) -> bytes:
    """Return a Parquet file; what a column means is in its metadata.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(f"export parquet needs pyarrow: {error}", "pip install 'zoo-bench[parquet]'") from None
    types: dict[Kind, pa.DataType] = {
        "text": pa.string(),
        "texts": pa.list_(pa.string()),
        "whole": pa.int64(),
        "number": pa.float64(),
    }
    fields = [pa.field(field.name, types[field.kind], metadata={"about": field.about}) for field in FIELDS]
    schema = pa.schema(fields, metadata={"zoo_bench": __version__, **heading(content)})
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(flat(content), schema=schema), stream)
    return stream.getvalue()
