"""A result as a Parquet file, by DuckDB (extra `[columnar]`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gateway.mapreduce.errors import JobFailed
from gateway.mapreduce.results import Table


def write_parquet(table: Table, path: Path) -> None:
    """Write it, whole or not at all. Raises JobFailed where DuckDB is not installed or cannot write it."""
    try:
        import duckdb
    except ImportError as error:
        raise JobFailed("DuckDB is not installed: pip install 'birdhouse[columnar]'") from error
    partial = path.with_name(f".{path.name}.part")
    with tempfile.TemporaryDirectory(prefix="birdhouse-parquet-") as folder:
        lines = Path(folder, "rows.jsonl")
        lines.write_text(table.json_lines())
        try:
            with duckdb.connect() as connection:
                source = connection.read_json(str(lines), format="newline_delimited")
                source.write_parquet(str(partial))
        except duckdb.Error as error:
            raise JobFailed(f"{path}: {error}") from error
    partial.replace(path)
