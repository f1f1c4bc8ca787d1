{{/* Labels of an object. Arguments: (list $ "operator") */}}
{{- define "lakeloop.labels" -}}
{{- $ := index . 0 -}}
{{ include "lakeloop.selector" . }}
app.kubernetes.io/part-of: lakeloop
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What selects pods; never changes. Arguments: (list $ "operator") */}}
{{- define "lakeloop.selector" -}}
app.kubernetes.io/name: lakeloop
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Arguments: (list $ .Values.images.operator) */}}
{{- define "lakeloop.image" -}}
{{- $image := index . 1 -}}
{{- $tag := $image.tag | default (index . 0).Chart.AppVersion -}}
{{ $image.repository }}{{ hasPrefix "sha256:" $tag | ternary "@" ":" }}{{ $tag }}
{{- end -}}

{{/* What every pod has in common; restricted Pod Security. */}}
{{- define "lakeloop.podDefaults" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "lakeloop.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "lakeloop.webhookSecret" -}}
{{ .Values.webhook.existingSecret | default "lakeloop-webhook" }}
{{- end -}}

{{/* The generated rules, as {watched, own, cluster}. */}}
{{- define "lakeloop.rules" -}}
{{- .Files.Get "generated/rbac-rules.yaml" -}}
{{- end -}}

{{/* Metadata of what the pre-delete hook needs. */}}
{{- define "lakeloop.cleanupMeta" -}}
labels:
  {{- include "lakeloop.labels" (list . "cleanup") | nindent 2 }}
annotations:
  helm.sh/hook: pre-delete
  helm.sh/hook-weight: "-5"
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
