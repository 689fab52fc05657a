-- Edges for people: what edges_1m has of each minute and pair of ends, by names as they are written and read.
CREATE VIEW IF NOT EXISTS edges AS
SELECT
    start AS time,
    concat(if(client_namespace = '', '', concat(client_namespace, '/')), if(client_name = '', replaceRegexpOne(toString(client_real_ip), '^::ffff:([0-9]+[.])', '\\1'), client_name)) AS client,
    if(client_workload = '', client, concat(client_namespace, '/', client_workload)) AS client_workload_name,
    toString(client_kind) AS client_is,
    concat(if(server_namespace = '', '', concat(server_namespace, '/')), if(server_name = '', replaceRegexpOne(toString(server_real_ip), '^::ffff:([0-9]+[.])', '\\1'), server_name)) AS server,
    if(server_workload = '', server, concat(server_namespace, '/', server_workload)) AS server_workload_name,
    toString(server_kind) AS server_is,
    server_port,
    if(service_name = '', '', concat(service_namespace, '/', service_name)) AS service,
    opened + joined AS connections,
    open_at_start,
    closed_refused + closed_unanswered AS failed,
    closed_refused AS refused,
    closed_unanswered AS unanswered,
    closed_reset_by_client + closed_reset_by_server AS reset,
    sent_bytes,
    received_bytes,
    sent_packets + received_packets AS packets,
    sent_retransmitted_packets + received_retransmitted_packets AS retransmitted_packets,
    syn_to_synack_us AS latency_us,
    syn_to_synack_count AS latency_count,
    syn_to_synack_buckets AS latency_buckets,
    first_seen,
    last_seen
FROM edges_1m
