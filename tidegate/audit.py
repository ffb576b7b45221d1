"""`tidegate audit`: what administrators did."""

from rich.table import Table

from gateway.auth.audit import AuditLog
from tidegate.identity import show_table, with_database


def show(limit: int) -> None:
    """Print the newest entries, newest first."""
    table = Table("at (UTC)", "who", "what", "to", "result", box=None, pad_edge=False)
    for entry in with_database(lambda database: AuditLog(database).latest(limit)):
        table.add_row(f"{entry.at:%Y-%m-%d %H:%M:%S}", entry.actor, entry.action, entry.target, entry.result)
    show_table(table)
