package kindcluster

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

func TestConfig(t *testing.T) {
	got, err := market().config()
	if err != nil {
		t.Fatal(err)
	}
	want := &v1alpha4.Cluster{
		TypeMeta: v1alpha4.TypeMeta{Kind: "Cluster", APIVersion: "kind.x-k8s.io/v1alpha4"},
		Name:     "quotes-market",
		Nodes: []v1alpha4.Node{{
			Role:  v1alpha4.ControlPlaneRole,
			Image: "fedlab/node:1",
			ExtraPortMappings: []v1alpha4.PortMapping{
				{ListenAddress: "127.0.0.1", HostPort: 8080, ContainerPort: 30080, Protocol: v1alpha4.PortMappingProtocolTCP},
			},
		}},
		Networking: v1alpha4.Networking{
			IPFamily: v1alpha4.IPv4Family, APIServerAddress: "127.0.0.1",
			PodSubnet: "10.64.0.0/16", ServiceSubnet: "10.128.0.0/16", DisableDefaultCNI: true,
		},
		KubeadmConfigPatches: got.KubeadmConfigPatches,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	stock := market()
	stock.DefaultCNI = true
	if got, err := stock.config(); err != nil || got.Networking.DisableDefaultCNI {
		t.Errorf("pod network of the image: disabled %t, error %v", got.Networking.DisableDefaultCNI, err)
	}
}

// TestPatches reads the patches as kind does: YAML with a kind and arguments
// that are strings.
func TestPatches(t *testing.T) {
	config, err := market().config()
	if err != nil {
		t.Fatal(err)
	}
	type component struct {
		ExtraArgs map[string]string `yaml:"extraArgs"`
	}
	var got struct {
		Kind              string    `yaml:"kind"`
		ControllerManager component `yaml:"controllerManager"`
		Scheduler         component `yaml:"scheduler"`
		Etcd              struct {
			Local component `yaml:"local"`
		} `yaml:"etcd"`
		FailCgroupV1     *bool `yaml:"failCgroupV1"`
		CrashLoopBackOff struct {
			MaxContainerRestartPeriod string `yaml:"maxContainerRestartPeriod"`
		} `yaml:"crashLoopBackOff"`
		IPTables struct {
			MinSyncPeriod string `yaml:"minSyncPeriod"`
		} `yaml:"iptables"`
	}
	for _, patch := range config.KubeadmConfigPatches {
		decoder := yaml.NewDecoder(strings.NewReader(patch))
		decoder.KnownFields(true)
		if err := decoder.Decode(&got); err != nil {
			t.Fatalf("%v in %s", err, patch)
		}
	}
	for name, c := range map[string]component{"controller manager": got.ControllerManager, "scheduler": got.Scheduler} {
		if c.ExtraArgs["leader-elect"] != "false" {
			t.Errorf("%s: %v", name, c)
		}
	}
	if got.Etcd.Local.ExtraArgs["unsafe-no-fsync"] != "true" || got.FailCgroupV1 == nil || *got.FailCgroupV1 {
		t.Errorf("etcd %v, failCgroupV1 %v", got.Etcd, got.FailCgroupV1)
	}
	if period, err := time.ParseDuration(got.CrashLoopBackOff.MaxContainerRestartPeriod); err != nil || period != time.Second {
		t.Errorf("containers are started again after %s (%v), want 1s, the least that kubelet takes", period, err)
	}
	if period, err := time.ParseDuration(got.IPTables.MinSyncPeriod); err != nil || period > 100*time.Millisecond {
		t.Errorf("kube-proxy lets %s (%v) pass before it acts again, want 100ms at most", period, err)
	}
}

// The kubelet makes control groups as the image's container runtime does.
func TestCgroupfs(t *testing.T) {
	for _, cgroupfs := range []bool{false, true} {
		config, err := with(func(s *Spec) { s.Cgroupfs = cgroupfs }).config()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(strings.Join(config.KubeadmConfigPatches, "---"), "kind: KubeletConfiguration\ncgroupDriver: cgroupfs\n"); got != cgroupfs {
			t.Errorf("asked for %t, got %t", cgroupfs, got)
		}
	}
}

func TestSpecRefused(t *testing.T) {
	tests := map[string]struct {
		spec Spec
		err  string
	}{
		"empty":     {Spec{}, "name is empty\nimage is empty\nnetwork is empty\nsubnet invalid Prefix is not an IPv4 prefix\nsubnet invalid Prefix is not an IPv4 prefix"},
		"long name": {with(func(s *Spec) { s.Name = strings.Repeat("a", 51) }), "name has 51 characters, at most 50 fit into the node's host name"},
		"IPv6":      {with(func(s *Spec) { s.PodSubnet = netip.MustParsePrefix("fc00::/56") }), "subnet fc00::/56 is not an IPv4 prefix"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := tt.spec.config(); message(err) != tt.err {
				t.Errorf("error %q, want %q", message(err), tt.err)
			}
		})
	}
}

func with(change func(*Spec)) Spec {
	s := market()
	change(&s)
	return s
}
