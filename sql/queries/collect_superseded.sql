-- What collect_mark would mark now.
SELECT uri, size_bytes, reason FROM superseded_checkpoints(make_interval(secs => $1)) ORDER BY uri
