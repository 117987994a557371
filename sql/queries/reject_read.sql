-- Invariant: read only; needs the owner's rights, for the content is a producer's.
SELECT refused.topic, refused.partition, refused.record_offset, refused.code, refused.reason, refused.value_bytes,
       refused.value_sha256, (extract(epoch FROM refused.rejected_at) * 1000)::bigint,
       (extract(epoch FROM refused.replayed_at) * 1000)::bigint, content.record_key, content.record_value,
       content.record_value IS NOT NULL AS is_kept
FROM reject_log AS refused
JOIN reject_content AS content ON content.reject_id = refused.reject_id
WHERE refused.reject_id = $1
