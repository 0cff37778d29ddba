# Creates a folder, prints its path, and waits until standard input closes, which means that the test process
# has ended, by any signal. Then it kills all processes that run in the folder, and removes the folder.
# Arguments: the parent of the folder, and cleanup commands to run first.
trap '' HUP INT QUIT TERM PIPE
cd /
folder=$(mktemp -d "$1/kw-XXXXXX" 2>/dev/null || mktemp -d /tmp/kw-XXXXXX) || exit 1
echo "$folder"

servers=
while read -r pid; do servers="$servers $pid"; done

eval "$2"

pids_in_folder() {
    ls -l /proc/[0-9]*/cwd 2>/dev/null | sed -n "s|.* /proc/\([0-9]*\)/cwd -> $folder.*|\1|p"
}

while pids=$(pids_in_folder); [ -n "$pids" ] || [ -e "$folder" ]; do
    servers="$servers $pids"
    # A process that was forked but does not run in the folder yet fails when the folder is gone.
    [ -z "$pids" ] || kill -9 $pids
    rm -rf "$folder"
done

# PostgreSQL's shared memory segment, which marks its folder as in use, outlives a killed server.
[ -r /proc/sysvipc/shm ] && while read -r _ segment _ _ creator _ attached _; do
    case " "$servers" " in *" $creator "*) [ "$attached" = 0 ] && ipcrm -m "$segment" ;; esac
done </proc/sysvipc/shm
