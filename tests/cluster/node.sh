#!/bin/bash
# A node: a machine's own mounts, processes, network, names and control groups, in which run a
# container runtime, the kubelet, kube-proxy, and kube-router for the network policies. It ends, and
# all of it, with this process; and this process ends if one of them does.
#
#   node.sh NAME ADDRESS PODS HOME PROGRAMS KUBECONFIG
set -eu
name=$1 address=$2 pods=$3 home=$4 programs=$5 kubeconfig=$6

hostname "$name"
mount --make-rshared /
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
for controller in $(awk 'NR > 1 && $2 > 0 && $4 { print $1 }' /proc/cgroups); do
  mkdir "/sys/fs/cgroup/$controller"
  mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
done
mkdir /sys/fs/cgroup/systemd
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount --bind "$home/var" /var
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/sysctl /var/log /var/lib/kubelet

# The kubelet wants these otherwise, and they are the whole machine's: it sees them as it wants them.
for wanted in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=/run/sysctl/$(basename "${wanted%=*}")
  echo "${wanted#*=}" > "$file"
  mount --bind "$file" "/proc/sys/${wanted%=*}"
done

until ip link show eth0 > /dev/null 2>&1; do sleep 0.1; done
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via 172.31.0.1
while read -r other way; do
  [ "$way" = "$address" ] || ip route add "$other" via "$way"
done < "$home/../routes"
sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1

cat > /run/containerd.toml <<END
version = 3
[grpc]
address = "/run/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/pause:latest"
[plugins."io.containerd.cri.v1.runtime"]
# A container in a container may not lower it.
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["$programs"]
conf_dir = "/run/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
END

mkdir /run/cni
cat > /run/cni/pods.conflist <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [{
  "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}
END

echo "nameserver 172.31.0.1" > /run/resolv.conf
cat > /run/kubelet.yaml <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix:///run/containerd.sock
clusterDNS: [172.31.0.1]
clusterDomain: cluster.local
resolvConf: /run/resolv.conf
# Only the API server is on this network, and the tests' own processes.
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
# A node that is lost is missed soon.
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8
# The disk is the machine's, however full others have made it.
evictionHard: {memory.available: 200Mi, nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
END

export PATH="$programs:$PATH"
run() {
  "$@" > "/var/log/$(basename "$1").log" 2>&1 &
}
run containerd --config /run/containerd.toml
until [ -S /run/containerd.sock ]; do sleep 0.1; done
run kubelet --config=/run/kubelet.yaml --kubeconfig="$kubeconfig" --hostname-override="$name" --node-ip="$address"
run kube-proxy --kubeconfig="$kubeconfig" --hostname-override="$name" --proxy-mode=iptables \
  --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
# It asks for the node, which the kubelet must have made.
until kubectl --kubeconfig="$kubeconfig" get node "$name" > /dev/null 2>&1; do sleep 0.5; done
run kube-router --kubeconfig="$kubeconfig" --hostname-override="$name" --run-firewall=true \
  --run-router=false --run-service-proxy=false --service-cluster-ip-range=10.96.0.0/16
wait -n
