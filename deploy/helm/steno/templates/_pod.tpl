{{/* Name of the service account of the services; empty: the namespace's default one. */}}
{{- define "steno.serviceAccount" -}}
{{- .Values.serviceAccountName | default (ternary (include "steno.fullname" .) "" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* The same of pods that run before the release, where one that it makes is not there yet. */}}
{{- define "steno.earlyAccount" -}}
{{- if not .Values.serviceAccount.create }}{{ .Values.serviceAccountName }}{{ end -}}
{{- end -}}

{{/* What all pods have: list root service-account. The Pod Security Standard "restricted", and no token. */}}
{{- define "steno.pod" -}}
{{- $root := index . 0 -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with index . 1 }}
serviceAccountName: {{ . }}
{{- end }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- range $key, $value := $root.Values.podSecurityContext }}
  {{- with $value }}
  {{ $key }}: {{ int64 . }}
  {{- end }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "steno.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Where pods of hooks run: root. */}}
{{- define "steno.hookPlacement" -}}
{{- range $key, $value := pick .Values.hooks "nodeSelector" "tolerations" "affinity" }}
{{- with $value }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What all containers of Steno have beside their own: list root. */}}
{{- define "steno.extraEnv" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.trustedCA.configMap }}
{{- range list "SSL_CERT_FILE" "PGSSLROOTCERT" "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" }}
- name: {{ . }}
  value: /etc/steno/ca/ca.crt
{{- end }}
{{- end }}
{{- with $root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "steno.extraVolumeMounts" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.trustedCA.configMap }}
- name: ca
  mountPath: /etc/steno/ca
  readOnly: true
{{- end }}
{{- with $root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "steno.extraVolumes" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.trustedCA }}
{{- if .configMap }}
- name: ca
  configMap:
    name: {{ .configMap }}
    items: [{key: {{ .key | quote }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The Secret of the services' certificate; empty without TLS. */}}
{{- define "steno.tls" -}}
{{- if .Values.tls.existingSecret -}}
{{- .Values.tls.existingSecret -}}
{{- else if .Values.tls.certManager.enabled -}}
{{- include "steno.name" (list . "tls") -}}
{{- end -}}
{{- end -}}

{{/* Whether a server serves, by the gRPC health protocol: list port seconds-to-start. */}}
{{- define "steno.probes" -}}
startupProbe:
  grpc:
    port: {{ index . 0 }}
    service: liveness
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ max 1 (div (index . 1) 5) }}
# Away while Postgres is; prepare also while S3 is.
readinessProbe:
  grpc:
    port: {{ index . 0 }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
# Fails only when the process itself does not answer: to start it again would not bring Postgres back.
livenessProbe:
  grpc:
    port: {{ index . 0 }}
    service: liveness
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}

{{/* A value of an environment variable; Helm reads numbers as floats. */}}
{{- define "steno.value" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . | quote }}{{ else }}{{ . | toString | quote }}{{ end -}}
{{- end -}}

{{/* Where Postgres is: list root. */}}
{{- define "steno.env.postgres" -}}
{{- $root := index . 0 -}}
- name: STENO_POSTGRES_URL
  valueFrom:
    secretKeyRef:
      {{- if $root.Values.bundled.enabled }}
      name: {{ include "steno.name" (list $root "bundled") }}
      key: postgres-url
      {{- else }}
      name: {{ required "postgres.existingSecret: name a Secret with Postgres' connection string, or set bundled.enabled to try Steno" $root.Values.postgres.existingSecret }}
      key: {{ $root.Values.postgres.urlKey }}
      {{- end }}
{{- end -}}

{{/* The Secret of the certificate that NATS is shown; empty if none is. */}}
{{- define "steno.natsTls" -}}
{{- if not .Values.bundled.enabled }}{{ .Values.nats.tlsSecret }}{{ end -}}
{{- end -}}

{{- define "steno.env.nats" -}}
{{- $root := index . 0 -}}
{{- $nats := $root.Values.nats -}}
- name: STENO_NATS_URL
  {{- if or $root.Values.bundled.enabled $nats.existingSecret }}
  valueFrom:
    secretKeyRef:
      name: {{ ternary (include "steno.name" (list $root "bundled")) $nats.existingSecret $root.Values.bundled.enabled }}
      key: {{ ternary "nats-url" $nats.urlKey $root.Values.bundled.enabled }}
  {{- else }}
  value: {{ required "nats.url or nats.existingSecret: say where NATS is, or set bundled.enabled to try Steno" $nats.url | quote }}
  {{- end }}
- name: STENO_NATS_REPLICAS
  value: {{ ternary 1 $nats.replicas $root.Values.bundled.enabled | quote }}
{{- if include "steno.natsTls" $root }}
- name: STENO_NATS_TLS_CERTIFICATE
  value: /etc/steno/nats/tls.crt
- name: STENO_NATS_TLS_KEY
  value: /etc/steno/nats/tls.key
{{- end }}
{{- end -}}

{{- define "steno.env.s3" -}}
{{- $root := index . 0 -}}
{{- $s3 := $root.Values.s3 -}}
{{- $bundled := $root.Values.bundled.enabled -}}
- name: STENO_S3_ENDPOINT
  {{- if $bundled }}
  value: http://{{ include "steno.name" (list $root "s3") }}:8333
  {{- else }}
  value: {{ required "s3.endpoint: say where the S3 store is, or set bundled.enabled to try Steno" $s3.endpoint | quote }}
  {{- end }}
{{- with $s3.publicEndpoint }}
- name: STENO_S3_PUBLIC_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: STENO_S3_BUCKET
  value: {{ $s3.bucket | quote }}
- name: STENO_S3_REGION
  value: {{ $s3.region | quote }}
{{- if or $bundled (not $s3.workloadIdentity) }}
{{- $secret := include "steno.name" (list $root "bundled") }}
{{- if not $bundled }}
{{- $secret = required "s3.existingSecret: name a Secret with the S3 store's credentials, or set s3.workloadIdentity" $s3.existingSecret }}
{{- end }}
- name: STENO_S3_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ ternary "s3-access-key" $s3.accessKeyKey $bundled }}
- name: STENO_S3_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ ternary "s3-secret-key" $s3.secretKeyKey $bundled }}
{{- end }}
{{- end -}}
