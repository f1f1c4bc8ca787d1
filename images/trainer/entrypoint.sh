#!/bin/bash
# What Spark's Kubernetes backend starts an executor pod with: `executor`, and SPARK_* variables (as its own image's
# entrypoint.sh reads them). Anything else is run as it is.
set -eu
if [ "${1:-}" != executor ]; then
  exec "$@"
fi
# Jars by name, in the order of bytes: an archive of classes is valid for the very same class path only, or one that
# begins with it. So Spark's conf folder comes last.
export LC_ALL=C
class_path=$(printf '%s:' "$SPARK_HOME"/jars/*.jar)
class_path=${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}${class_path%:}${SPARK_CONF_DIR:+:$SPARK_CONF_DIR}
options=()
while IFS= read -r option; do
  options+=("$option")
done < <(env | grep '^SPARK_JAVA_OPT_' | sort -t_ -k4 -n | sed 's/[^=]*=\(.*\)/\1/')
archive=${LAKELOOP_CDS_ARCHIVE:-/opt/lakeloop/spark.jsa}
if [ -f "$archive" ]; then
  options=(-Xshare:auto "-XX:SharedArchiveFile=$archive" "${options[@]}")
fi
logged=()
if [ -n "${LAKELOOP_LOG_FOLDER:-}" ]; then
  logged=(lakeloop-logged) # keeps a copy of the output, for the sidecar
fi
exec "${logged[@]}" java "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" -cp "$class_path" \
  org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
  --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
  --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
  --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
