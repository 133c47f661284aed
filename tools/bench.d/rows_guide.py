"""The row from a running server to a compact image that another project has: all of the guide's job.

Nova is the lab's stand-in, Keystone and Glance are real. The helper machine that the guide has its
readers rent is this one: its boot is in no time here.
"""
from model import NO_RAW, RSS, Row, Sitting, Way

GUIDE = Way(
    "guide", "the guide's commands, one by one",
    'openstack server stop "$SERVER"\n'
    'until [[ $(openstack server show -f value -c status "$SERVER") == SHUTOFF ]]; do sleep 1; done\n'
    'openstack server image create --wait --name snapcow-bench-raw "$SERVER" >"$OUT/raw.txt"\n'
    'openstack server start "$SERVER"\n'
    'openstack image save --file "$OUT/disk.raw" snapcow-bench-raw\n'
    'qemu-img convert -c -O qcow2 "$OUT/disk.raw" "$OUT/image.qcow2"\n'
    'id=$(openstack image create -f value -c id --disk-format qcow2 --container-format bare '
    '--file "$OUT/image.qcow2" snapcow-bench)\n'
    'openstack image delete snapcow-bench-raw\n'
    'openstack image set --shared "$id"\n'
    'openstack image add project "$id" "$MEMBER_PROJECT" >"$OUT/member.txt"\n'
    'OS_CLOUD="$MEMBER_CLOUD" openstack image set --accept "$id"\n'
    'echo "$id"', "image", needs=("qemu-img", "openstack"))

OURS = Way(
    "snapshot", "snapcow snapshot, snapcow share",
    'id=$("$SNAPCOW" snapshot -q --progress none --stop "$SERVER" snapcow-bench)\n'
    '"$SNAPCOW" share -q "$id" --with "$MEMBER_PROJECT" --accept-as "$MEMBER_CLOUD" >"$OUT/member.txt"\n'
    'echo "$id"', "image")

SITTINGS = (Sitting("guide", place="disk", glance="noranges", server=True),)

ROWS = (
    Row("guide", "from a running server to a shared, accepted, compact image with the raw one gone; no-Range store",
        "guide", OURS, (GUIDE,), bars=(NO_RAW, RSS)),
)
