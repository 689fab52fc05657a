-- Rows with all that flows tells, as tests write them, become rows as flows stores them.
CREATE MATERIALIZED VIEW flows_given_view TO flows AS
SELECT * EXCEPT (
    first_seen, last_seen, age_us, client_ip, client_port, server_ip, server_port, sent_bytes, received_bytes,
    syn_to_synack_max_us, synack_to_ack_max_us, first_response_max_us, duration_us, duration_max_us
),
    toInt64(toUnixTimestamp64Micro(first_seen) - toInt64(toUnixTimestamp(interval_start)) * 1000000) AS first_offset_us,
    toUnixTimestamp64Micro(last_seen) - toUnixTimestamp64Micro(first_seen) AS active_us,
    toInt64(age_us) - (toUnixTimestamp64Micro(last_seen) - toUnixTimestamp64Micro(first_seen)) AS age_rest_us,
    if(client_ip = client_real_ip AND client_port = client_real_port, toIPv6('::'), client_ip) AS client_seen_ip,
    if(client_ip = client_real_ip AND client_port = client_real_port, 0, client_port) AS client_seen_port,
    if(server_ip = server_real_ip AND server_port = server_real_port, toIPv6('::'), server_ip) AS server_seen_ip,
    if(server_ip = server_real_ip AND server_port = server_real_port, 0, server_port) AS server_seen_port,
    sent_bytes - sent_payload_bytes AS sent_header_bytes,
    received_bytes - received_payload_bytes AS received_header_bytes,
    toInt64(syn_to_synack_max_us) - toInt64(syn_to_synack_us) AS syn_to_synack_max_rest_us,
    toInt64(synack_to_ack_max_us) - toInt64(synack_to_ack_us) AS synack_to_ack_max_rest_us,
    toInt64(first_response_max_us) - toInt64(first_response_us) AS first_response_max_rest_us,
    toInt64(duration_us) - if(duration_count = 0, 0, toInt64(age_us)) AS duration_rest_us,
    toInt64(duration_max_us) - toInt64(duration_us) AS duration_max_rest_us
FROM flows_given
