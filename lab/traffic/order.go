package traffic

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MaxCalls is how many calls a stream has at most. One that has as many ends by
// itself: the Detail of its last call says so, and no verdict holds on what would
// have come after.
const MaxCalls = 20_000

// What Every and Within may be. A probe is to be felt neither by the machine nor
// by the server, and a connection that is kept is not to be closed as idle.
const (
	shortest = 10 * time.Millisecond
	longest  = 30 * time.Second
)

// nameLimit is how many bytes the name of a stream has at most.
const nameLimit = 200

// workloadID is a SPIFFE ID with a path (SPIFFE-ID standard, section 2).
var workloadID = regexp.MustCompile(`^spiffe://[a-z0-9._-]+(/[a-zA-Z0-9._-]+)+$`)

// Check returns nil when o can be followed, and otherwise all that is wrong with
// it.
func (o Order) Check() error {
	err := errors.Join(checkName(o.Name), checkAddress(o.Address), checkServer(o.Server),
		checkBetween("every", o.Every), checkBetween("within", o.Within), checkConnection(o.Connection))
	if err != nil {
		return fmt.Errorf("order %q: %w", o.Name, err)
	}
	return nil
}

func checkName(name string) error {
	plain := func(r rune) bool { return unicode.IsPrint(r) && r != '/' }
	if name == "" || name == "." || name == ".." || len(name) > nameLimit || strings.TrimFunc(name, plain) != "" {
		return fmt.Errorf("name is %.*q: want 1 to %d printable characters without a slash", nameLimit, name, nameLimit)
	}
	return nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil && host != "" {
		if number, err := strconv.ParseUint(port, 10, 16); err == nil && number > 0 {
			return nil
		}
	}
	return fmt.Errorf("address is %q: want host:port, such as 172.18.200.10:8443", address)
}

func checkServer(id string) error {
	dots := func(segment string) bool { return segment == "." || segment == ".." }
	if !workloadID.MatchString(id) || slices.ContainsFunc(strings.Split(id, "/"), dots) {
		return fmt.Errorf("server is %q: want a SPIFFE ID with a path, such as spiffe://cluster1.com/fedlab/probe", id)
	}
	return nil
}

func checkBetween(field string, d time.Duration) error {
	if d < shortest || d > longest {
		return fmt.Errorf("%s is %s: want %s to %s", field, d, shortest, longest)
	}
	return nil
}

func checkConnection(c Connection) error {
	if all := []Connection{Fresh, Kept, Resumed}; !slices.Contains(all, c) {
		return fmt.Errorf("connection is %q: want one of %q", c, all)
	}
	return nil
}
