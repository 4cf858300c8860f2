{{/*
What there is of each workload: Deployment, PodDisruptionBudget, autoscaler, and a headless Service
(gRPC balances over pods by itself, so it must see them).

root, component, values (with the defaults), module, port, and:
  serves    whether it has a Service of its own
  backends  of postgres, nats, s3, those it speaks to
  env       own variables, name: value
  envYaml   further entries of env
  queue     query of what waits, for KEDA
  startupSeconds, fetchSeconds
            until it has started, and what its init containers may take before
  image, volumes, volumeMounts, initContainers, runtimeClassName, resourceClaims
*/}}
{{- define "steno.workload" -}}
{{- $root := .root -}}
{{- $name := include "steno.name" (list .root .component) -}}
{{- $v := .values -}}
{{- $tls := include "steno.tls" .root -}}
{{- $natsTls := include "steno.natsTls" .root -}}
{{- $health := ternary 50060 .port (ne $tls "") -}}
{{- if lt (int $v.terminationGracePeriodSeconds) 20 }}
{{- fail (printf "%s: terminationGracePeriodSeconds must be 20 at least" .component) }}
{{- end }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels:
    {{- include "steno.labels" (list .root .component) | nindent 4 }}
spec:
  {{- if eq $v.autoscaling.type "none" }}
  replicas: {{ $v.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  {{- with $v.minReadySeconds }}
  minReadySeconds: {{ . }}
  {{- end }}
  # A rollout that comes no further in this time has failed. A node and the image have ten minutes.
  progressDeadlineSeconds: {{ add 600 (.startupSeconds | default 120) (.fetchSeconds | default 0) $v.minReadySeconds }}
  selector:
    matchLabels:
      {{- include "steno.selector" (list .root .component) | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: {{ $v.rollingUpdate.maxSurge }}
      maxUnavailable: {{ $v.rollingUpdate.maxUnavailable }}
  template:
    metadata:
      labels:
        {{- with $v.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- include "steno.labels" (list .root .component) | nindent 8 }}
      {{- with $v.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "steno.pod" (list .root (include "steno.serviceAccount" .root)) | nindent 6 }}
      {{- if not $v.hostUsers }}
      hostUsers: false
      {{- end }}
      terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds }}
      {{- with $v.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with .runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      {{- with .resourceClaims }}
      resourceClaims:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $v.topologySpreadKeys }}
      topologySpreadConstraints:
        {{- range . }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: {{ $v.topologySpreadWhenUnsatisfiable }}
          # Those that are replaced do not count.
          matchLabelKeys: [pod-template-hash]
          labelSelector:
            matchLabels:
              {{- include "steno.selector" (list $root $.component) | nindent 14 }}
        {{- end }}
      {{- end }}
      {{- with .initContainers }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .container | default .component }}
          image: {{ .image | default (include "steno.image" (list .root .root.Values.image.repository)) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: [python, -m, {{ .module }}]
          ports:
            - name: grpc
              containerPort: {{ .port }}
            - name: metrics
              containerPort: 9090
            {{- if $tls }}
            - name: health
              containerPort: {{ $health }}
            {{- end }}
          env:
            - name: STENO_LISTEN
              value: "0.0.0.0:{{ .port }}"
            {{- if $tls }}
            - name: STENO_HEALTH_LISTEN
              value: "0.0.0.0:{{ $health }}"
            - name: STENO_TLS_CERTIFICATE
              value: /etc/steno/tls/tls.crt
            - name: STENO_TLS_KEY
              value: /etc/steno/tls/tls.key
            - name: STENO_TLS_CA
              value: /etc/steno/tls/ca.crt
            {{- end }}
            - name: STENO_SHUTDOWN_GRACE_SECONDS
              value: {{ sub (int $v.terminationGracePeriodSeconds) 15 | quote }}
            {{- range .backends }}
            {{- include (printf "steno.env.%s" .) (list $root) | nindent 12 }}
            {{- end }}
            {{- if has "postgres" .backends }}
            - name: STENO_POSTGRES_POOL_SIZE
              value: {{ include "steno.value" .root.Values.postgres.poolSize }}
            {{- end }}
            {{- range $variable, $value := .env }}
            - name: {{ $variable }}
              value: {{ $value | quote }}
            {{- end }}
            {{- with .envYaml }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- range $variable, $value := $v.settings }}
            - name: {{ $variable }}
              value: {{ include "steno.value" $value }}
            {{- end }}
            {{- include "steno.extraEnv" (list .root) | nindent 12 }}
          {{- include "steno.probes" (list $health (.startupSeconds | default 120)) | nindent 10 }}
          # Clients and load balancers learn that it goes before it stops answering.
          lifecycle:
            preStop:
              sleep:
                seconds: 5
          resources:
            {{- toYaml .resources | nindent 12 }}
          {{- include "steno.containerSecurity" . | nindent 10 }}
          volumeMounts:
            - name: tmp
              mountPath: /tmp
            {{- if $tls }}
            - name: tls
              mountPath: /etc/steno/tls
              readOnly: true
            {{- end }}
            {{- if $natsTls }}
            - name: nats-tls
              mountPath: /etc/steno/nats
              readOnly: true
            {{- end }}
            {{- with .volumeMounts }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- include "steno.extraVolumeMounts" (list .root) | nindent 12 }}
      volumes:
        - name: tmp
          emptyDir:
            sizeLimit: 256Mi
        {{- with $tls }}
        - name: tls
          secret:
            secretName: {{ . }}
            defaultMode: 0440
        {{- end }}
        {{- with $natsTls }}
        - name: nats-tls
          secret:
            secretName: {{ . }}
            defaultMode: 0440
        {{- end }}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- include "steno.extraVolumes" (list .root) | nindent 8 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels:
    {{- include "steno.labels" (list .root .component) | nindent 4 }}
spec:
  maxUnavailable: {{ $v.podDisruptionBudget.maxUnavailable }}
  # A pod that is not ready holds up no drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "steno.selector" (list .root .component) | nindent 6 }}
{{- if .serves }}
---
{{ include "steno.service" (dict "root" .root "name" .component "component" .component "port" .port) }}
{{- end }}
{{- include "steno.autoscaler" . }}
{{- end -}}

{{/* A headless Service: root, name, component of its pods, port. */}}
{{- define "steno.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "steno.name" (list .root .name) }}
  labels:
    {{- include "steno.labels" (list .root .component) | nindent 4 }}
spec:
  clusterIP: None
  selector:
    {{- include "steno.selector" (list .root .component) | nindent 4 }}
  ports:
    - name: grpc
      port: {{ .port }}
      targetPort: grpc
      appProtocol: {{ ternary "https" "kubernetes.io/h2c" (ne (include "steno.tls" .root) "") }}
{{- end -}}

{{- define "steno.autoscaler" -}}
{{- $auto := .values.autoscaling -}}
{{- $name := include "steno.name" (list .root .component) -}}
{{- if eq $auto.type "hpa" }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels:
    {{- include "steno.labels" (list .root .component) | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {{ $name }}
  minReplicas: {{ max 1 (int $auto.minReplicas) }}
  maxReplicas: {{ $auto.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $auto.targetCPUUtilizationPercentage }}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: {{ $auto.scaleDownSeconds }}
{{- else if eq $auto.type "keda" }}
{{- if not .queue }}
{{- fail (printf "%s: autoscaling.type keda is for prepare and the pools; nothing waits here" .component) }}
{{- end }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $name }}
  labels:
    {{- include "steno.labels" (list .root .component) | nindent 4 }}
spec:
  scaleTargetRef:
    name: {{ $name }}
  minReplicaCount: {{ $auto.minReplicas }}
  maxReplicaCount: {{ $auto.maxReplicas }}
  cooldownPeriod: {{ $auto.scaleDownSeconds }}
  # Without news from Prometheus the number of pods stays.
  fallback:
    failureThreshold: 3
    replicas: {{ max 1 (int $auto.minReplicas) }}
    behavior: currentReplicasIfHigher
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown:
          stabilizationWindowSeconds: {{ $auto.scaleDownSeconds }}
  triggers:
    - type: prometheus
      metricType: AverageValue
      metadata:
        serverAddress: {{ required "monitoring.prometheusAddress: KEDA asks Prometheus" .root.Values.monitoring.prometheusAddress | quote }}
        query: {{ .queue | quote }}
        threshold: {{ include "steno.value" $auto.queuedPerReplica }}
        # Where Prometheus knows of no queue, `job` is not looked at: that is no empty queue.
        ignoreNullValues: "false"
        {{- with .root.Values.monitoring.prometheusAuthModes }}
        authModes: {{ . | quote }}
        {{- end }}
      {{- with .root.Values.monitoring.prometheusAuthenticationRef }}
      authenticationRef:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
{{- end -}}
