-- Rows {first}, {first} + 1, … of a history's `units`, as rows of flows. A unit is what one connection does
-- in one minute, seen on the client's side and, within the cluster, on the server's side too. All of it is
-- hashed from the unit's number: the same history every time.
--
-- {start}: the history's first second, on a minute. {per_minute}: units of each minute, of which the first
-- {long_lived} are of connections that stay open.
INSERT INTO flows
(
    interval_start, interval_s, first_offset_us, active_us,
    node, agent, interface, interface_kind, reporter, local_primary, primary,
    connection_id, id_kind, handshake_seen, age_rest_us,
    client_kind, client_namespace, client_name, client_workload, client_workload_kind, client_node,
    client_real_ip, client_real_port,
    server_seen_ip, server_seen_port, server_kind, server_namespace, server_name, server_workload, server_workload_kind, server_node,
    server_real_ip, server_real_port, service_namespace, service_name,
    sent_header_bytes, sent_payload_bytes, sent_packets, sent_retransmitted_packets, sent_zero_window_packets,
    received_header_bytes, received_payload_bytes, received_packets, received_retransmitted_packets, received_zero_window_packets,
    opened, open_at_start, closed_fin, closed_reset_by_client, closed_reset_by_server, closed_refused, closed_unanswered,
    syn_to_synack_us, syn_to_synack_count,
    synack_to_ack_us, synack_to_ack_count,
    first_response_us, first_response_count,
    duration_count,
    topic_id, partition, chunk_start
)
WITH
    -- From 0 to 1, exclusive; and of a normal distribution (Box and Muller).
    (seed, i) -> (bitShiftRight(cityHash64(seed, i), 12) + 0.5) / 4503599627370496. AS uniform,
    (seed, i) -> sqrt(-2 * log(uniform(seed, i))) * cos(2 * pi() * uniform(seed, i + 1)) AS normal,
    (seed, i, median, sigma) -> toUInt64(median * exp(sigma * normal(seed, i))) AS log_normal,

    -- Workloads 0 to 499, in 25 namespaces, of 1 to 7 replicas; every 4 to 12 days all pods are replaced.
    (w) -> ['shop', 'pay', 'search', 'auth', 'media'][w % 5 + 1] || '-' || leftPad(toString(w % 25), 2, '0') AS namespace_of,
    (w) -> ['api', 'web', 'worker', 'cache', 'db', 'gateway', 'batch', 'queue'][cityHash64(w, 1) % 8 + 1] || '-' || leftPad(toString(w), 3, '0') AS workload_of,
    (w) -> if(w % 10 = 4, 'StatefulSet', 'Deployment') AS kind_of,
    (w) -> cityHash64(w, 2) % 7 + 1 AS replicas_of,
    (w) -> (cityHash64(w, 3) % 9 + 4) * 86400 AS rollout_s_of,
    (w, at_s) -> intDiv(at_s + cityHash64(w, 4) % rollout_s_of(w), rollout_s_of(w)) AS generation_of,
    (w, pod) -> workload_of(w) || '-' || if(kind_of(w) = 'StatefulSet', toString(pod.2),
        substring(lower(hex(cityHash64(w, pod.1))), 1, 10) || '-' || substring(lower(hex(cityHash64(w, pod.1, pod.2))), 1, 5)) AS pod_name_of,
    (w, pod) -> cityHash64(w, pod.1, pod.2) AS pod_hash_of,
    (hash) -> 'node-' || leftPad(toString(hash % 50), 2, '0') || '.cluster.example' AS node_of,
    (hash) -> IPv4ToIPv6(toUInt32(167772160 + (100 + hash % 50) * 65536 + bitShiftRight(hash, 32) % 65536)) AS pod_ip_of,
    -- Ports of a workload's Service and of its pods.
    (w) -> [(80, 8080), (80, 8080), (443, 8443), (6379, 6379), (5432, 5432), (80, 8000), (9090, 9090), (5672, 5672)][cityHash64(w, 1) % 8 + 1] AS ports_of
SELECT
    toDateTime(interval_s_, 'UTC'),
    10,
    first_us + shift_us - interval_us,
    last_us - first_us,
    if(side = 1, client_node, server_node) AS observer,
    observer,
    'veth' || substring(lower(hex(if(side = 1, client_hash, server_hash))), 9, 8),
    'pod',
    if(side = 1, 'client', 'server'),
    side = 1 OR client_node != server_node,
    side = 1,
    bitShiftLeft(client_isn, 32) + if(failed, 0, cityHash64(connection, 21) % 4294967295 + 1),
    if(failed, 'partial', 'complete'),
    true,
    first_us - opened_us,
    'pod', namespace_of(client), pod_name_of(client, client_pod), workload_of(client), kind_of(client), client_node,
    client_ip, client_port,
    if(side = 1 AND through_service, service_ip, toIPv6('::')),
    if(side = 1 AND through_service, ports_of(server).1, 0),
    if(external, 'external', 'pod'),
    if(external, '', namespace_of(server)),
    if(external, '', pod_name_of(server, server_pod)),
    if(external, '', workload_of(server)),
    if(external, '', kind_of(server)),
    server_node,
    server_real_ip, server_real_port,
    if(through_service, namespace_of(server), ''),
    if(through_service, workload_of(server), ''),
    sent * 52, sent_payload, sent, sent_again, 0,
    received * 52, received_payload, received, if(received > 0, cityHash64(record, 33) % 100 < 1, 0), cityHash64(record, 34) % 1000 < 1 AND received > 0,
    opens,
    NOT opens,
    closes AND fate >= 30,
    closes AND fate >= 10 AND fate < 20,
    closes AND fate >= 20 AND fate < 30,
    closes AND refused,
    closes AND failed AND NOT refused,
    if(answered, if(side = 1, network_us + 40, 40), 0), answered,
    if(answered, if(side = 1, 25, network_us), 0), answered,
    if(answered, network_us + log_normal(connection, 37, 3000, 1.2), 0), answered,
    -- As long as they are old, which is what the table takes for granted.
    closes AND NOT failed,
    'history', client_isn % 4, intDiv(unit, 50000) * 50000
FROM
(
    SELECT
        *,
        arrayJoin(if(external, [1], [1, 2])) AS side,
        if(side = 1, 0, 90) AS shift_us,
        sent_again_ AND sent > 0 AS sent_again
    FROM
    (
        SELECT
            *,
            cityHash64(connection, 20) % 4294967295 + 1 AS client_isn,
            32768 + cityHash64(connection, 22) % 28000 AS client_port,
            -- Pods are those of the connection's opening.
            (generation_of(client, opened_s), cityHash64(connection, 5) % replicas_of(client)) AS client_pod,
            (generation_of(server, opened_s), cityHash64(connection, 6) % replicas_of(server)) AS server_pod,
            pod_hash_of(client, client_pod) AS client_hash,
            pod_hash_of(server, server_pod) AS server_hash,
            node_of(client_hash) AS client_node,
            if(external, '', node_of(server_hash)) AS server_node,
            pod_ip_of(client_hash) AS client_ip,
            -- 300 addresses outside, two to an edge.
            if(external, IPv4ToIPv6(toUInt32(570425344 + cityHash64(edge, cityHash64(connection, 7) % 2) % 300)), pod_ip_of(server_hash)) AS server_real_ip,
            if(external, 443, ports_of(server).2) AS server_real_port,
            IPv4ToIPv6(toUInt32(174063616 + server)) AS service_ip,
            NOT external AND edge % 10 < 6 AS through_service,

            -- Of a thousand short connections 5 are refused, 5 unanswered and 20 reset.
            if(long_lived, 1000, cityHash64(connection, 8) % 1000) AS fate,
            fate < 10 AS failed,
            fate < 5 AS refused,
            opens AND NOT failed AS answered,
            log_normal(connection, 35, if(external, 20000, 300), 0.7) AS network_us,

            -- This record: an open connection has packets in three minutes of five.
            cityHash64(connection, minute) AS record,
            opens OR closes OR record % 5 < 3 AS active,
            interval_s_ * 1000000 AS interval_us,
            multiIf(opens, opened_us, active, interval_us + record % 5000000, interval_us) AS first_us,
            multiIf(failed OR NOT active, first_us,
                least(first_us + network_us * 3 + log_normal(record, 40, 80000, 1.5), interval_us + 9999000)) AS last_us,
            multiIf(refused, 1, failed, 3, active, 4 + log_normal(record, 42, 5, 1), 0) AS sent,
            multiIf(refused, 1, failed, 0, active, 3 + log_normal(record, 44, 7, 1), 0) AS received,
            if(failed, 0, sent * least(log_normal(record, 46, 120, 0.8), 1400)) AS sent_payload,
            if(failed, 0, received * least(log_normal(record, 48, 500, 1), 1400)) AS received_payload,
            cityHash64(record, 32) % 100 < 2 AS sent_again_
        FROM
        (
            SELECT
                *,
                long_lived ? cityHash64(slot, intDiv(minute + phase, life), 1) : cityHash64(unit, 2) AS connection,
                NOT long_lived OR (minute + phase) % life = 0 AS opens,
                NOT long_lived OR (minute + phase) % life = life - 1 AS closes,
                -- When it was opened. A heartbeat is in its minute's first interval, an opening in a later one.
                {start:UInt32} + (minute - if(long_lived, (minute + phase) % life, 0)) * 60
                    + if(long_lived, 10 + cityHash64(connection, 3) % 5 * 10, cityHash64(connection, 3) % 6 * 10) AS opened_interval_s,
                opened_interval_s * 1000000 + cityHash64(connection, 4) % 9000000 AS opened_us,
                opened_interval_s AS opened_s,
                if(opens, opened_interval_s, {start:UInt32} + minute * 60) AS interval_s_,

                -- Zipf's law: the nth edge has 1/n of the first one's traffic. Four of each client, to
                -- servers of which some are called by many; one in ten leads outside.
                toUInt64(least(exp(uniform(connection, 9) * log(2001)), 2000)) - 1 AS edge,
                edge * 7 % 500 AS client,
                (client + intDiv(edge, 500) * 125 + toUInt64(exp(uniform(edge, 10) * log(125)))) % 500 AS server,
                edge % 10 = 7 AS external
            FROM
            (
                SELECT
                    number AS unit,
                    toInt64(intDiv(number, {per_minute:UInt64})) AS minute,
                    number % {per_minute:UInt64} AS slot,
                    slot < {long_lived:UInt64} AS long_lived,
                    -- Minutes that the slot's connections stay open, and where in its life the first is.
                    toInt64(cityHash64(slot, 11) % 715 + 5) AS life,
                    toInt64(cityHash64(slot, 12) % life) AS phase
                FROM numbers_mt({first:UInt64}, {count:UInt64})
            )
        )
    )
)
