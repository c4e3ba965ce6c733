"""Sums of each period's results by hour and by hook, for each channel and for all. They are made with the table of videos.

The desk's results page shows them. Summing a year of a large catalogue for every page view would take too long, and the numbers
change only when the table of videos is made again.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

# Days that the desk can show, today included.
PERIODS = (7, 28, 90, 365)
MOST_HOOKS = 12

_CLEAR = text("DELETE FROM phantoms.performance_sums")
_SINCE = "date_trunc('day', transaction_timestamp(), 'UTC') - make_interval(days => CAST(:days AS integer) - 1)"
_COLUMNS = "days, channel, hour, hook, videos, posts, views, reactions, cost, since, computed_at"
_NUMBERS = """count(*) AS videos, sum(v.posts) AS posts, sum(v.views) AS views, sum(v.likes + v.comments + v.shares) AS reactions,
            COALESCE(sum(v.cost), 0) AS cost"""
_HOURS = text(
    f"""
    INSERT INTO phantoms.performance_sums ({_COLUMNS})
    SELECT :days, COALESCE(x.channel, ''), x.hour, NULL, x.videos, x.posts, x.views, x.reactions, x.cost, {_SINCE},
        transaction_timestamp()
    FROM (
        SELECT v.channel, v.hour, {_NUMBERS} FROM (
            SELECT v.*, CAST(extract(hour FROM v.first_published_at AT TIME ZONE COALESCE(c.config->>'timezone',
            'UTC')) AS integer)
                AS hour
            FROM phantoms.video_performance v LEFT JOIN phantoms.channels c ON c.name = v.channel
            WHERE v.first_published_at >= {_SINCE}
        ) v GROUP BY GROUPING SETS ((v.channel, v.hour), (v.hour))
    ) x
    """
)
_HOOKS = text(
    f"""
    INSERT INTO phantoms.performance_sums ({_COLUMNS})
    SELECT :days, COALESCE(x.channel, ''), NULL, x.hook, x.videos, x.posts, x.views, x.reactions, x.cost, {_SINCE},
        transaction_timestamp()
    FROM (
        SELECT v.channel, v.hook, {_NUMBERS}, row_number() OVER (PARTITION BY v.channel ORDER BY sum(v.views) DESC,
        v.hook) AS place
        FROM phantoms.video_performance v WHERE v.first_published_at >= {_SINCE} AND v.hook IS NOT NULL
        GROUP BY GROUPING SETS ((v.channel, v.hook), (v.hook))
    ) x WHERE x.place <= {MOST_HOOKS}
    """
)


def renew_sums(connection: Connection) -> None:
    """Make the sums again, in the transaction that made the table of videos."""
    connection.execute(_CLEAR)
    for days in PERIODS:
        connection.execute(_HOURS, {"days": days})
        connection.execute(_HOOKS, {"days": days})
