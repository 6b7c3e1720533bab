package lab_test

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsPod is the pod of each cluster's DNS.
const dnsPod = "coredns-0"

// resolve is the DNS of a cluster: it answers by the names of the world until the
// connection ends.
func (w *world) resolve(conn net.Conn) {
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
		address, known := w.names[host]
		for n := range w.nodes {
			if n.lab+"-"+n.cluster+"-control-plane" == host { // Docker knows its containers
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
