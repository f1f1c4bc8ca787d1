{{- /* Recommended labels. Call with (list . "minio"): the context and the part's name. */}}
{{- define "platform.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/part-of: lakeloop
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{- define "platform.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "platform.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "platform.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "platform.image" -}}
image: {{ printf "%s:%s" .image.repository .image.tag | quote }}
{{- end }}

{{- /* A value made at the first install and kept on every upgrade. Call with (list . "secret" "key" length). */}}
{{- define "platform.generated" -}}
{{- $root := index . 0 -}}
{{- $found := lookup "v1" "Secret" $root.Release.Namespace (index . 1) -}}
{{- if and $found (hasKey (default dict $found.data) (index . 2)) -}}
{{- index $found.data (index . 2) | b64dec -}}
{{- else -}}
{{- randAlphaNum (index . 3 | int) -}}
{{- end -}}
{{- end }}

{{- define "platform.endpoint" -}}
{{- if .Values.minio.enabled -}}
http://minio.{{ .Release.Namespace }}.svc:9000
{{- else -}}
{{- .Values.objectStore.endpoint -}}
{{- end -}}
{{- end }}

{{- /* Environment that boto3 reads. */}}
{{- define "platform.storageEnv" -}}
{{- $minio := .Values.minio.enabled -}}
{{- $secret := ternary "minio-root" .Values.objectStore.existingSecret $minio -}}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ ternary "rootUser" "AWS_ACCESS_KEY_ID" $minio }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ ternary "rootPassword" "AWS_SECRET_ACCESS_KEY" $minio }}}}
- {name: AWS_DEFAULT_REGION, value: {{ .Values.objectStore.region | quote }}}
{{- with include "platform.endpoint" . }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
- {name: MLFLOW_S3_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- end }}

{{- /* 32 random bytes in URL-safe base64, made once. */}}
{{- define "platform.fernet" -}}
{{- $found := lookup "v1" "Secret" .Release.Namespace "mlflow-webhooks" -}}
{{- if and $found (hasKey (default dict $found.data) "encryptionKey") -}}
{{- $found.data.encryptionKey | b64dec -}}
{{- else -}}
{{- randBytes 32 | replace "+" "-" | replace "/" "_" -}}
{{- end -}}
{{- end }}
