"""Whether VACUUM leaves a pinned version whole until the run is over."""

from datetime import datetime, timedelta


def vacuum_problem(
    table: str, version: int, removed_by: int, removed_at: datetime, there: bool, kept: timedelta, deadline: datetime
) -> tuple[str, str] | None:
    """Reason and message, or None where the version is safe until the deadline.

    `removed_by`, `removed_at`: the first later commit that removed files of the version. `there`: they are still in the
    store. `kept`: how long VACUUM leaves a removed file alone.
    """
    files = f"files that version {version} of {table} needs were removed by version {removed_by} ({removed_at:%FT%TZ})"
    if not there:
        return "VersionVacuumed", f"{files}, and VACUUM has taken them: pin a later version, or take the pin away"
    if removed_at + kept >= deadline:
        return None
    return (
        "VersionMayBeVacuumed",
        f"{files}, and VACUUM may take them before the run's deadline, {deadline:%FT%TZ}: pin a later version, or keep "
        "them longer by the table's property delta.deletedFileRetentionDuration, such as 'interval 365 days'",
    )
