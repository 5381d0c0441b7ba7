# As a pod sees it: the image at its own place, a root that can not be written to, /tmp alone to write in, user 10001. Must run as root, in a mount namespace.
# read_only.sh MOUNTPOINT IMAGE TMP COMMAND...: a folder to mount on, the image's root, what is to be /tmp
set -eu
root=$1 image=$2 tmp=$3
shift 3
mount --make-rprivate /
mount --bind / "$root"
mount -o remount,ro,bind "$root"
mount --bind "$image/opt" "$root/opt"
mount -o remount,ro,bind "$root/opt"
mount --bind "$tmp" "$root/tmp"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mkdir "$tmp/scratch"
chown -R 10001:10001 "$tmp"
# To read all is granted: a developer's Python may lie in a home folder. To write is not.
exec chroot "$root" setpriv --reuid 10001 --regid 10001 --clear-groups \
  --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search --bounding-set=-all,+dac_read_search \
  env -i -C /tmp/scratch "$@"
