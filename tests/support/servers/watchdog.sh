# Makes a folder, says where it is, and waits; when its standard input closes, the test process is done or
# dead, by whatever signal. Then it kills every process that works in the folder, and removes the folder.
# Arguments: where to make the folder, and what to run first when the time has come.
trap '' HUP INT QUIT TERM PIPE
cd /
folder=$(mktemp -d "$1/kw-XXXXXX" 2>/dev/null || mktemp -d /tmp/kw-XXXXXX) || exit 1
echo "$folder"

servers=
while read -r pid; do servers="$servers $pid"; done

eval "$2"

inhabitants() {
    ls -l /proc/[0-9]*/cwd 2>/dev/null | sed -n "s|.* /proc/\([0-9]*\)/cwd -> $folder.*|\1|p"
}

while pids=$(inhabitants); [ -n "$pids" ] || [ -e "$folder" ]; do
    servers="$servers $pids"
    # A process that is between its fork and its work here finds no folder, and ends by itself.
    [ -z "$pids" ] || kill -9 $pids
    rm -rf "$folder"
done

# The segment by which PostgreSQL knows that its folder is in use outlives a killed server.
[ -r /proc/sysvipc/shm ] && while read -r _ segment _ _ creator _ attached _; do
    case " "$servers" " in *" $creator "*) [ "$attached" = 0 ] && ipcrm -m "$segment" ;; esac
done </proc/sysvipc/shm
