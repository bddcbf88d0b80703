#!/bin/sh
# The first process of a lab guest: User-Mode-Linux, its root the host's, read-only over hostfs.
# `lab=N` on the kernel's command line is the guest's number: its addresses are 10.77.0.N and fd77::N.
# With `ike` there, ports 500 and 4500 are left to an IKE daemon.
# It changes nothing outside of memory, and ends up as the agent that the tests talk to.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run LANG=C

# The project may lie under what is mounted over.
agent=$(cat "${0%/*}/agent.py")
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
printf '%s\n' "$agent" >/run/agent.py
ike=
for word in $(cat /proc/cmdline); do
  case $word in
    lab=*) number=${word#lab=} ;;
    ike) ike=ike ;;
  esac
done

# Modules are the guest kernel's own, for us and for what the kernel loads by itself when an SA asks for it.
# jitterentropy's self test costs seconds on this coarse clock, and the generator does without it.
mkdir -p /run/modules/lib /run/modules/conf
ln -s /usr/lib/uml/modules /run/modules/lib/modules
echo 'install jitterentropy_rng /bin/false' >/run/modules/conf/lab.conf
cat >/run/modprobe <<'END'
#!/bin/sh
exec modprobe -d /run/modules -C /run/modules/conf "$@"
END
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe -a ipv6 af_packet unix esp4 esp6 ah4 ah6 xfrm_user af_key xfrm4_tunnel xfrm6_tunnel ipip ip_gre dummy

ip link set lo up
ip link set vec0 up
ip addr add "10.77.0.$number/24" dev vec0
ip addr add "fd77::$number/64" dev vec0 nodad
# Whom to ask for a neighbour would be a question that an SA for all protocols swallows.
for other in 1 2 9; do
  [ "$other" = "$number" ] && continue
  ip neigh replace "10.77.0.$other" lladdr "02:00:00:00:77:0$other" dev vec0 nud permanent
  ip neigh replace "fd77::$other" lladdr "02:00:00:00:77:0$other" dev vec0 nud permanent
done
exec /usr/bin/python3 /run/agent.py "10.77.0.$number" $ike
