{{/*
How services reach Kafka and ClickHouse: flags, variables and files. Passwords and keys are files, which
`kubectl describe` does not show; users are variables from the same Secret.

All take (dict "root" $ "component" NAME).
*/}}

{{- define "flowtrail.kafkaSecret" -}}
{{- (index .root.Values .component).kafkaSecret | default .root.Values.kafka.sasl.secret }}
{{- end }}

{{- define "flowtrail.kafkaCertificateSecret" -}}
{{- (index .root.Values .component).kafkaCertificateSecret | default .root.Values.kafka.tls.clientCertificate.secret }}
{{- end }}

{{- define "flowtrail.clickhouseSecret" -}}
{{- (index .root.Values .component).clickhouseSecret | default .root.Values.clickhouse.login.secret }}
{{- end }}

{{- define "flowtrail.kafkaArguments" -}}
{{- $kafka := .root.Values.kafka -}}
- --kafka-brokers={{ $kafka.brokers }}
- --kafka-topic={{ $kafka.topic }}
{{- if $kafka.tls.enabled }}
- --kafka-tls
{{- if or $kafka.tls.ca.secret $kafka.tls.ca.configMap }}
- --kafka-ca-file=/etc/flowtrail/kafka-ca/ca.crt
{{- end }}
{{- if include "flowtrail.kafkaCertificateSecret" . }}
- --kafka-certificate-file=/etc/flowtrail/kafka-certificate/tls.crt
- --kafka-key-file=/etc/flowtrail/kafka-certificate/tls.key
{{- end }}
{{- end }}
{{- with $kafka.sasl.mechanism }}
- --kafka-sasl-mechanism={{ . }}
- --kafka-password-file=/etc/flowtrail/kafka-login/password
{{- end }}
{{- range $kafka.properties }}
- {{ printf "--kafka-property=%s" . | quote }}
{{- end }}
{{- end }}

{{- define "flowtrail.clickhouseArguments" -}}
{{- $clickhouse := .root.Values.clickhouse -}}
- {{ printf "--clickhouse-url=%s" $clickhouse.url | quote }}
- --clickhouse-database={{ $clickhouse.database }}
{{- if or $clickhouse.ca.secret $clickhouse.ca.configMap }}
- --clickhouse-ca-file=/etc/flowtrail/clickhouse-ca/ca.crt
{{- end }}
{{- if include "flowtrail.clickhouseSecret" . }}
- --clickhouse-password-file=/etc/flowtrail/clickhouse-login/password
{{- end }}
{{- end }}

{{- define "flowtrail.kafkaEnvironment" -}}
{{- with .root.Values.kafka.sasl }}
{{- if .mechanism }}
- name: FLOWTRAIL_KAFKA_USER
  valueFrom:
    secretKeyRef:
      name: {{ include "flowtrail.kafkaSecret" $ }}
      key: {{ .userKey }}
{{- end }}
{{- end }}
{{- end }}

{{- define "flowtrail.clickhouseEnvironment" -}}
{{- with include "flowtrail.clickhouseSecret" . }}
- name: FLOWTRAIL_CLICKHOUSE_USER
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.root.Values.clickhouse.login.userKey }}
{{- end }}
{{- end }}

{{/* Takes (dict "name" VOLUME "ca" VALUES). */}}
{{- define "flowtrail.caVolume" -}}
- name: {{ .name }}
  {{- if .ca.secret }}
  secret:
    secretName: {{ .ca.secret }}
  {{- else }}
  configMap:
    name: {{ .ca.configMap }}
  {{- end }}
    items:
      - key: {{ .ca.key }}
        path: ca.crt
{{- end }}

{{- define "flowtrail.kafkaVolumes" -}}
{{- with .root.Values.kafka.tls }}
{{- if .enabled }}
{{- if or .ca.secret .ca.configMap }}
{{ include "flowtrail.caVolume" (dict "name" "kafka-ca" "ca" .ca) }}
{{- end }}
{{- with include "flowtrail.kafkaCertificateSecret" $ }}
- name: kafka-certificate
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440
    items:
      - key: {{ $.root.Values.kafka.tls.clientCertificate.certificateKey }}
        path: tls.crt
      - key: {{ $.root.Values.kafka.tls.clientCertificate.privateKeyKey }}
        path: tls.key
{{- end }}
{{- end }}
{{- end }}
{{- with .root.Values.kafka.sasl }}
{{- if .mechanism }}
- name: kafka-login
  secret:
    secretName: {{ include "flowtrail.kafkaSecret" $ }}
    defaultMode: 288 # 0440
    items:
      - key: {{ .passwordKey }}
        path: password
{{- end }}
{{- end }}
{{- end }}

{{- define "flowtrail.clickhouseVolumes" -}}
{{- with .root.Values.clickhouse.ca }}
{{- if or .secret .configMap }}
{{ include "flowtrail.caVolume" (dict "name" "clickhouse-ca" "ca" .) }}
{{- end }}
{{- end }}
{{- with include "flowtrail.clickhouseSecret" . }}
- name: clickhouse-login
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440
    items:
      - key: {{ $.root.Values.clickhouse.login.passwordKey }}
        path: password
{{- end }}
{{- end }}

{{/* Where volumes are mounted: each at its name under /etc/flowtrail. Takes their YAML. */}}
{{- define "flowtrail.mounts" -}}
{{- range . }}
- name: {{ .name }}
  mountPath: /etc/flowtrail/{{ .name }}
  readOnly: true
{{- end }}
{{- end }}
