{{/*
A small server with one volume, at /data: root, component, image, port, user, command, env, probe, and
a further folder that it must be able to write.
*/}}
{{- define "steno.server" -}}
{{- $root := .root -}}
{{- $name := include "steno.name" (list .root .component) -}}
{{- $bundled := .root.Values.bundled -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    {{- include "steno.labels" (list .root .component) | nindent 4 }}
spec:
  selector:
    {{- include "steno.selector" (list .root .component) | nindent 4 }}
  ports:
    - name: {{ .component }}
      port: {{ .port }}
      targetPort: {{ .component }}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels:
    {{- include "steno.labels" (list .root .component) | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ $name }}
  selector:
    matchLabels:
      {{- include "steno.selector" (list .root .component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "steno.labels" (list .root .component) | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with .root.Values.serviceAccountName }}
      serviceAccountName: {{ . }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ .user }}
        runAsGroup: {{ .user }}
        fsGroup: {{ .user }}
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: {{ .component }}
          image: {{ .image }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          {{- .command | nindent 10 }}
          ports:
            - name: {{ .component }}
              containerPort: {{ .port }}
          {{- with .env }}
          env:
            {{- . | nindent 12 }}
          {{- end }}
          startupProbe:
            {{- .probe | nindent 12 }}
            periodSeconds: 2
            timeoutSeconds: 5
            failureThreshold: 60
          readinessProbe:
            {{- .probe | nindent 12 }}
            periodSeconds: 5
            timeoutSeconds: 5
          livenessProbe:
            {{- .probe | nindent 12 }}
            periodSeconds: 20
            timeoutSeconds: 10
            failureThreshold: 6
          resources:
            requests:
              cpu: 100m
              memory: 256Mi
            limits:
              cpu: "1"
              memory: 1Gi
          {{- include "steno.containerSecurity" . | nindent 10 }}
          volumeMounts:
            - name: data
              mountPath: /data
            - name: tmp
              mountPath: /tmp
            - name: config
              mountPath: /config
              readOnly: true
            {{- with .writable }}
            - name: run
              mountPath: {{ . }}
            {{- end }}
      volumes:
        {{- if .writable }}
        - name: run
          emptyDir:
            sizeLimit: 1Mi
        {{- end }}
        - name: tmp
          emptyDir:
            sizeLimit: 64Mi
        - name: config
          secret:
            secretName: {{ include "steno.name" (list .root "bundled") }}
        {{- if not $bundled.persistence }}
        - name: data
          emptyDir:
            sizeLimit: {{ $bundled.storageSize }}
        {{- end }}
  {{- if $bundled.persistence }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $bundled.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $bundled.storageSize }}
  {{- end }}
{{- end -}}
