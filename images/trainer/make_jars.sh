#!/bin/sh
# The jars that go beside pyspark's: those of pom.xml, and our own one from java/. make_jars.sh FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
maven() { mvn --batch-mode --quiet --file "$here/pom.xml" "$@"; }
maven dependency:copy-dependencies "-DoutputDirectory=$folder"
# pyspark brings hadoop-client-api: only the compiler needs it from here.
hadoop=$(sed -n 's/.*<hadoop.version>\(.*\)<.*/\1/p' "$here/pom.xml")
maven dependency:copy "-Dartifact=org.apache.hadoop:hadoop-client-api:$hadoop" "-DoutputDirectory=$folder/compile"
javac --release 17 -nowarn -cp "$folder/*:$folder/compile/*" -d "$folder/classes" "$here"/java/io/lakeloop/*.java
jar --create --file "$folder/lakeloop.jar" --date 1980-01-01T00:00:02+00:00 -C "$folder/classes" io
rm -r "$folder/compile" "$folder/classes"
