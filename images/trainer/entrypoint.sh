#!/bin/bash
# What Spark's Kubernetes backend starts an executor pod with: `executor`, and SPARK_* variables (as its own image's entrypoint.sh reads
# them). Anything else is run as it is.
set -eu
if [ "${1:-}" != executor ]; then
  exec "$@"
fi
options=()
while IFS= read -r option; do
  options+=("$option")
done < <(env | grep '^SPARK_JAVA_OPT_' | sort -t_ -k4 -n | sed 's/[^=]*=\(.*\)/\1/')
# Jars by name and in order: a class-data archive is valid for the very same class path only.
class_path=$(printf '%s:' "$SPARK_HOME"/jars/*.jar)
archive=()
if [ -f "${LAKELOOP_EXECUTOR_CDS_ARCHIVE:-/opt/lakeloop/executor.jsa}" ]; then
  archive=(-Xshare:auto "-XX:SharedArchiveFile=${LAKELOOP_EXECUTOR_CDS_ARCHIVE:-/opt/lakeloop/executor.jsa}")
fi
exec java "${archive[@]}" "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" \
  -cp "${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}${class_path%:}" \
  org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
  --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
  --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
  --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
