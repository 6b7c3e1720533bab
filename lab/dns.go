package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// The DNS of a cluster, as kubeadm installs it, and what kubelet writes into
// resolv.conf of a pod (Kubernetes, "DNS for Services and Pods").
const (
	dnsNamespace = "kube-system"
	dnsPort      = 53
	clusterZone  = "cluster.local."
	// searchBelow is the number of dots below which a pod tries the search list
	// first.
	searchBelow = 5
)

// dnsBound is how long the DNS of a cluster may take for all that is asked about
// one name. It asks resolvers outside of the cluster about names that it does not
// have itself.
const dnsBound = 10 * time.Second

// UnknownHostError says that the DNS of a cluster knows no address of a name.
type UnknownHostError struct {
	Host, Cluster string
	// Why is what the DNS said last.
	Why string
}

func (e *UnknownHostError) Error() string {
	return fmt.Sprintf("the DNS of cluster %s knows no address of %s (%s)", e.Cluster, e.Host, e.Why)
}

// lookup returns the addresses that a pod of SPIRE in a place finds for a host.
// This machine, and the cluster's node, know other names than pods do. The error
// is an *UnknownHostError where the DNS of the cluster says so.
func lookup(ctx context.Context, pods access.Pods, from topology.Place, host string) (_ []netip.Addr, err error) {
	if address, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{address}, nil
	}
	servers, err := pods.Named(ctx, dnsNamespace, map[string]string{"k8s-app": "kube-dns"})
	if err != nil {
		return nil, err
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("look up %s: no pod of the DNS of cluster %s is ready", host, from.Cluster.Name)
	}
	conn, err := pods.Dial(ctx, dnsNamespace, servers[0], dnsPort)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(dnsBound)); err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	why := ""
	for _, name := range candidates(from, host) {
		addresses, said, err := addressesOf(conn, name)
		if err != nil {
			return nil, fmt.Errorf("look up %s in cluster %s: %w", host, from.Cluster.Name, err)
		}
		if len(addresses) > 0 {
			return addresses, nil
		}
		why = said
	}
	return nil, &UnknownHostError{host, from.Cluster.Name, why}
}

// candidates returns the names that a pod in a place asks about for a host, in order.
func candidates(from topology.Place, host string) []string {
	if strings.HasSuffix(host, ".") {
		return []string{host}
	}
	host += "."
	searched := []string{host + from.Namespace + ".svc." + clusterZone, host + "svc." + clusterZone, host + clusterZone}
	if strings.Count(host, ".") > searchBelow {
		return append([]string{host}, searched...)
	}
	return append(searched, host)
}

// addressesOf asks a DNS server about the IPv4 addresses of a name. Where it has none, it
// returns what the server said.
func addressesOf(conn net.Conn, name string) ([]netip.Addr, string, error) {
	about, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, "", err
	}
	question := dnsmessage.Message{
		Header:    dnsmessage.Header{RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: about, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	packed, err := question.Pack()
	if err != nil {
		return nil, "", err
	}
	// Over TCP each message follows its length (RFC 1035, section 4.2.2).
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return nil, "", err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, "", err
	}
	data := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, data); err != nil {
		return nil, "", err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(data); err != nil {
		return nil, "", err
	}
	var addresses []netip.Addr
	for _, resource := range answer.Answers {
		if a, ok := resource.Body.(*dnsmessage.AResource); ok {
			addresses = append(addresses, netip.AddrFrom4(a.A))
		}
	}
	if answer.RCode != dnsmessage.RCodeSuccess {
		return addresses, strings.TrimPrefix(answer.RCode.String(), "RCode"), nil
	}
	return addresses, "no IPv4 address", nil
}
