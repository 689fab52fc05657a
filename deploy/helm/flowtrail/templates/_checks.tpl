{{/* What the schema cannot say: values that contradict each other. Prints nothing, or fails. */}}
{{- define "flowtrail.checks" -}}
{{- $values := .Values }}
{{- if and (or $values.capture.enabled $values.ingest.enabled) (not $values.kafka.brokers) }}
{{- fail "kafka.brokers is empty: give the brokers as host:port, separated by commas" }}
{{- end }}
{{- if and (or $values.ingest.enabled $values.query.enabled $values.schema.enabled) (not $values.clickhouse.url) }}
{{- fail "clickhouse.url is empty: give ClickHouse's HTTP interface, like http://clickhouse:8123" }}
{{- end }}

{{- $partitions := int $values.kafka.partitions }}
{{- $replicas := int $values.ingest.replicas }}
{{- $value := "ingest.replicas" }}
{{- with $values.ingest.autoscaling }}
{{- if .enabled }}
{{- $replicas = int .maxReplicas }}
{{- $value = "ingest.autoscaling.maxReplicas" }}
{{- if gt (int .minReplicas) $replicas }}
{{- fail (printf "ingest.autoscaling.minReplicas is %d, above maxReplicas, %d" (int .minReplicas) $replicas) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $values.ingest.enabled (gt $replicas $partitions) }}
{{- fail (printf "%s is %d, but topic %s has %d partitions (kafka.partitions), and each is read by one replica: the others would have nothing to do" $value $replicas $values.kafka.topic $partitions) }}
{{- end }}

{{- with $values.kafka }}
{{- range $component := list "capture" "ingest" }}
{{- $context := dict "root" $ "component" $component }}
{{- if (index $values $component).enabled }}
{{- if and $values.kafka.sasl.mechanism (not (include "flowtrail.kafkaSecret" $context)) }}
{{- fail (printf "kafka.sasl.mechanism is %s, but no Secret has %s's user and password: give kafka.sasl.secret or %s.kafkaSecret" $values.kafka.sasl.mechanism $component $component) }}
{{- end }}
{{- if and (include "flowtrail.kafkaSecret" $context) (not $values.kafka.sasl.mechanism) }}
{{- fail (printf "there is a Secret to log in to Kafka with (%s), but not how: give kafka.sasl.mechanism" (include "flowtrail.kafkaSecret" $context)) }}
{{- end }}
{{- if and (include "flowtrail.kafkaCertificateSecret" $context) (not $values.kafka.tls.enabled) }}
{{- fail "there is a certificate to show to Kafka's brokers, but kafka.tls.enabled is false" }}
{{- end }}
{{- end }}
{{- end }}
{{- range $component := list "capture" "ingest" }}
{{- range (index $values $component).extraEnv }}
{{- if and (eq .name "FLOWTRAIL_KAFKA_PROPERTY") $values.kafka.properties }}
{{- fail (printf "%s.extraEnv has FLOWTRAIL_KAFKA_PROPERTY, which kafka.properties would hide: put all of them into the one" $component) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (or .tls.ca.secret .tls.ca.configMap) (not .tls.enabled) }}
{{- fail "kafka.tls.ca is given, but kafka.tls.enabled is false" }}
{{- end }}
{{- if and (eq .sasl.mechanism "plain") (not .tls.enabled) }}
{{- fail "kafka.sasl.mechanism is plain, which sends the password itself: set kafka.tls.enabled, or use scram-sha-512" }}
{{- end }}
{{- end }}

{{- with $values.clickhouse }}
{{- if and (or .ca.secret .ca.configMap) (not (hasPrefix "https://" .url)) }}
{{- fail (printf "clickhouse.ca is given, but clickhouse.url is %s: use https" .url) }}
{{- end }}
{{- end }}

{{- if $values.query.enabled }}
{{- with $values.query.tokens }}
{{- if and .secret .disabled }}
{{- fail "query.tokens has a secret and is disabled: leave one away" }}
{{- end }}
{{- if not (or .secret .disabled) }}
{{- fail "whoever reaches query would see everything: give query.tokens.secret, or set query.tokens.disabled if something in front of it asks who they are" }}
{{- end }}
{{- end }}
{{- if and $values.serviceMonitor.enabled (not $values.query.tokens.disabled) (not $values.serviceMonitor.queryToken.secret) }}
{{- fail "query's metrics take a token of all namespaces: give serviceMonitor.queryToken.secret" }}
{{- end }}
{{- end }}
{{- if and $values.dashboards.enabled (not (.Files.Glob "dashboards/*.json")) }}
{{- fail "this chart has no dashboards in it: package it from a whole checkout, with deploy/grafana/dashboards" }}
{{- end }}
{{- end }}
