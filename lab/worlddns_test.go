package lab_test

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
)

// dnsPod is the pod of each cluster's DNS.
const dnsPod = "coredns-0"

// dnsKey has the configuration of the DNS.
var dnsKey = access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-system", Name: "coredns"}

// corefile is what kubeadm makes, as far as it matters.
const corefile = `.:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       ttl 30
    }
    forward . /etc/resolv.conf
    reload
}
`

// newDNS is that of a cluster which was just made.
func newDNS() string { return dnsWith(corefile) }

func dnsWith(file string) string {
	return string(encode(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": "kube-system", "name": "coredns"},
		"data": map[string]any{"Corefile": file},
	}))
}

// knows returns the address of a name as a node's pods, or a host's server, find it.
func (n *node) knows(host string) (netip.Addr, bool) {
	if n.host != nil {
		address, known := n.host.programs[lab.HostServer].Names[host]
		return address, known
	}
	var is struct{ Data map[string]string }
	if err := json.Unmarshal([]byte(n.objects[dnsKey]), &is); err != nil {
		return netip.Addr{}, false
	}
	for line := range strings.Lines(is.Data["Corefile"]) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[1] == host {
			if address, err := netip.ParseAddr(fields[0]); err == nil {
				return address, true
			}
		}
	}
	address, known := n.names[host]
	return address, known
}

// resolve is the DNS of a cluster: it answers until the connection ends.
func (n *node) resolve(conn net.Conn) {
	w := n.world
	defer func() { _ = conn.Close() }()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, data); err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(data); err != nil {
			panic(err)
		}
		m.Response = true
		name := m.Questions[0].Name
		w.mu.Lock()
		host := strings.TrimSuffix(name.String(), ".")
		address, known := n.knows(host)
		for other := range w.nodes {
			if other.lab+"-"+other.cluster+"-control-plane" == host { // Docker knows its containers
				address, known = netip.AddrFrom4([4]byte{10, 192, 0, 2}), true
			}
		}
		w.mu.Unlock()
		if m.RCode = dnsmessage.RCodeNameError; known {
			m.RCode = dnsmessage.RCodeSuccess
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 5},
				Body:   &dnsmessage.AResource{A: address.As4()},
			}}
		}
		packed, err := m.Pack()
		if err != nil {
			panic(err)
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
			return
		}
	}
}
