{{/* Labels of an object of a part. Arguments: (list $ "minio" "object-store") */}}
{{- define "platform.labels" -}}
{{- $ := index . 0 -}}
{{ include "platform.selector" (list $ (index . 1)) }}
app.kubernetes.io/component: {{ index . 2 }}
app.kubernetes.io/part-of: lakeloop
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What selects the pods of a part; never changes. Arguments: (list $ "minio") */}}
{{- define "platform.selector" -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end -}}

{{/* Arguments: (list $ .Values.minio.image) */}}
{{- define "platform.image" -}}
{{- $image := index . 1 -}}
{{- $tag := $image.tag | default (index . 0).Chart.AppVersion -}}
{{ $image.repository }}{{ hasPrefix "sha256:" $tag | ternary "@" ":" }}{{ $tag }}
{{- end -}}

{{/* What every pod has in common; restricted Pod Security. */}}
{{- define "platform.podDefaults" -}}
serviceAccountName: lakeloop-platform
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "platform.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "platform.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
A base64 value for a generated Secret: the one in the cluster, else the fallback (plain text).
Arguments: (list $ namespace name key fallback). Without a cluster (helm template) there is nothing to look up.
*/}}
{{- define "platform.kept" -}}
{{- $secret := lookup "v1" "Secret" (index . 1) (index . 2) -}}
{{- $data := ($secret | default dict).data | default dict -}}
{{- get $data (index . 3) | default (index . 4 | b64enc) -}}
{{- end -}}

{{- define "platform.minioSecret" -}}
{{ .Values.minio.existingSecret | default "minio-root" }}
{{- end -}}

{{- define "platform.postgresqlSecret" -}}
{{ .Values.postgresql.existingSecret | default "postgresql" }}
{{- end -}}

{{- define "platform.mlflowSecret" -}}
{{ .Values.mlflow.webhooks.existingSecret | default "mlflow" }}
{{- end -}}

{{/* The Secret in the release's namespace with MLflow's own key to the store; empty: none. */}}
{{- define "platform.mlflowStorageSecret" -}}
{{- if .Values.minio.enabled }}minio-user-mlflow{{ else }}{{ .Values.externalStorage.existingSecret }}{{ end -}}
{{- end -}}

{{- define "platform.storageEndpoint" -}}
{{- if .Values.minio.enabled -}}
http://minio.{{ .Release.Namespace }}.svc:9000
{{- else -}}
{{ .Values.externalStorage.endpoint }}
{{- end -}}
{{- end -}}

{{/* MinIO's users: MLflow's own, which reads artifacts for its web page, and those of the values. As {users: [...]}. */}}
{{- define "platform.users" -}}
{{- $users := list -}}
{{- if .Values.mlflow.enabled -}}
{{- $users = append $users (dict "name" "mlflow" "buckets" (list "mlflow")) -}}
{{- end -}}
{{- range .Values.minio.users -}}
{{- $users = append $users (dict "name" .name "namespace" .namespace "secretName" (.secretName | default "lakeloop-storage") "buckets" (.buckets | default $.Values.minio.buckets)) -}}
{{- end -}}
{{ dict "users" $users | toYaml }}
{{- end -}}

{{/* AWS variables of a container. Arguments: (list $ secretName); without a Secret: workload identity. */}}
{{- define "platform.storageEnv" -}}
{{- $ := index . 0 -}}
- name: AWS_REGION
  value: {{ $.Values.storageRegion | quote }}
- name: AWS_DEFAULT_REGION
  value: {{ $.Values.storageRegion | quote }}
{{- with include "platform.storageEndpoint" $ }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
- name: MLFLOW_S3_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with index . 1 }}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}
{{- end }}
{{- end -}}

{{/* The address of MLflow's database; the password is a variable that the kubelet expands. */}}
{{- define "platform.backendEnv" -}}
{{- if .Values.postgresql.enabled -}}
- name: POSTGRES_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "platform.postgresqlSecret" . }}, key: password}
- name: MLFLOW_BACKEND_STORE_URI
  # The driver is named: SQLAlchemy's default changed with 2.1, and the image carries this one.
  value: postgresql+psycopg2://{{ .Values.postgresql.username }}:$(POSTGRES_PASSWORD)@postgresql.{{ .Release.Namespace }}.svc:5432/{{ .Values.postgresql.database }}
{{- else -}}
- name: MLFLOW_BACKEND_STORE_URI
  valueFrom:
    secretKeyRef: {name: {{ required "mlflow.backendStore.existingSecret: name a Secret whose key `uri` is the database's address, or set postgresql.enabled: true" .Values.mlflow.backendStore.existingSecret }}, key: uri}
{{- end }}
{{- end -}}

{{/* Host headers that MLflow answers, one per line. */}}
{{- define "platform.allowedHosts" -}}
{{- $namespace := .Release.Namespace -}}
{{- range $host := list "mlflow" (printf "mlflow.%s" $namespace) (printf "mlflow.%s.svc" $namespace) (printf "mlflow.%s.svc.cluster.local" $namespace) "localhost" "127.0.0.1" }}
{{ $host }}
{{ $host }}:*
{{- end }}
{{- range .Values.mlflow.extraAllowedHosts }}
{{ . }}
{{- if not (regexMatch "[:*]" .) }}
{{ . }}:*
{{- end }}
{{- end }}
{{- end -}}

{{- define "platform.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}
