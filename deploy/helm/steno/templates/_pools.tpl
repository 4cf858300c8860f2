{{/* A pool with all its values, as YAML: list root name. Where the engine is remote, there are no
     GPUs, and the port is known. */}}
{{- define "steno.pool" -}}
{{- $root := index . 0 -}}
{{- $own := index $root.Values.transcription.pools (index . 1) | default dict -}}
{{- $own = mergeOverwrite (deepCopy $root.Values.transcription.poolDefaults) $own -}}
{{- $pool := mergeOverwrite (deepCopy $root.Values.defaults) (include "steno.pool.rollout" $own | fromYaml) $own -}}
{{- if $pool.remote.url -}}
{{- $_ := set $pool "gpus" 0 -}}
{{- $_ := set $pool "runtimeClassName" "" -}}
{{- $_ := set $pool.remote "port" (int ($pool.remote.port | default (include "steno.port" $pool.remote.url))) -}}
{{- end -}}
{{- $pool | toYaml -}}
{{- end -}}

{{/* TCP port of a URL. */}}
{{- define "steno.port" -}}
{{- $url := urlParse . -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- end -}}

{{/* How a pool is replaced, unless it says it: a spare GPU, or a volume that a second node may mount, is
     seldom there. */}}
{{- define "steno.pool.rollout" -}}
{{- $volume := and (include "steno.pool.stored" .) (eq .modelStore.type "volume") -}}
{{- if and (not .remote.url) (or .gpus $volume) -}}
rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
{{- end -}}
{{- end -}}

{{/* Name by which jobs ask for a pool's model. */}}
{{- define "steno.pool.model" -}}
{{- .modelName | default (ternary .remote.model .model (ne .remote.url "")) -}}
{{- end -}}

{{/* "true" where a pool's model is in its pods, and not in the image; it comes from `modelStore`. */}}
{{- define "steno.pool.stored" -}}
{{- if and (ne .model "tiny.en") (not .remote.url) }}true{{ end -}}
{{- end -}}

{{/* Models that jobs may ask for, the default pool's first. */}}
{{- define "steno.models" -}}
{{- $transcription := .Values.transcription -}}
{{- if not (hasKey $transcription.pools $transcription.defaultPool) -}}
{{- fail (printf "transcription.defaultPool: there is no pool %q" $transcription.defaultPool) -}}
{{- end -}}
{{- $models := list (include "steno.pool.model" (include "steno.pool" (list . $transcription.defaultPool) | fromYaml)) -}}
{{- range $name, $_ := $transcription.pools -}}
{{- $models = append $models (include "steno.pool.model" (include "steno.pool" (list $ $name) | fromYaml)) -}}
{{- end -}}
{{- $models | uniq | join "," -}}
{{- end -}}

{{/* A container that fetches a pool's model into /models: root, pool. */}}
{{- define "steno.fetch" -}}
- name: fetch
  image: {{ include "steno.image" (list .root .root.Values.image.repository) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [steno, models, pull, {{ .pool.model | quote }}]
  env:
    - name: STENO_MODEL_DIR
      value: /models
    - name: HF_HOME
      value: /tmp/huggingface
    {{- with .root.Values.transcription.modelHub }}
    {{- with .endpoint }}
    - name: HF_ENDPOINT
      value: {{ . | quote }}
    {{- end }}
    {{- if .existingSecret }}
    - name: HF_TOKEN
      valueFrom:
        secretKeyRef:
          name: {{ .existingSecret }}
          key: {{ .tokenKey }}
    {{- end }}
    {{- end }}
    {{- include "steno.extraEnv" (list .root) | nindent 4 }}
  resources:
    requests:
      cpu: 100m
      memory: 256Mi
      {{- if eq .pool.modelStore.type "download" }}
      # What the files take of the node.
      ephemeral-storage: {{ .pool.modelStore.sizeLimit }}
      {{- end }}
    limits:
      cpu: "1"
      memory: 1Gi
  {{- include "steno.containerSecurity" . | nindent 2 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    - name: models
      mountPath: /models
    {{- include "steno.extraVolumeMounts" (list .root) | nindent 4 }}
{{- end -}}
