package traffic_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/traffic"
)

func TestOrdersAreChecked(t *testing.T) {
	good := traffic.Order{
		Name: "cluster2.com calls cluster1.com", Address: "172.18.200.10:8443", Server: "spiffe://cluster1.com/fedlab/probe",
		Every: 10 * time.Millisecond, Within: 30 * time.Second, Connection: traffic.Kept,
	}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	const (
		address = `address is %q: want host:port, such as 172.18.200.10:8443`
		server  = `server is %q: want a SPIFFE ID with a path, such as spiffe://cluster1.com/fedlab/probe`
	)
	of := func(text, value string) string { return strings.Replace(text, "%q", `"`+value+`"`, 1) }
	for name, test := range map[string]struct {
		change func(*traffic.Order)
		want   string
	}{
		"no name":            {func(o *traffic.Order) { o.Name = "" }, `name is "": want 1 to 200 printable characters without a slash`},
		"a name with a path": {func(o *traffic.Order) { o.Name = "a/b" }, `name is "a/b": want 1 to 200 printable characters without a slash`},
		"a name that leads up": {func(o *traffic.Order) { o.Name = ".." },
			`name is "..": want 1 to 200 printable characters without a slash`},
		"a name of two lines": {func(o *traffic.Order) { o.Name = "a\nb" }, `name is "a\nb": want 1 to 200 printable characters without a slash`},
		"a name that never ends": {func(o *traffic.Order) { o.Name = strings.Repeat("a", 201) },
			`name is "` + strings.Repeat("a", 200) + `": want 1 to 200 printable characters without a slash`},
		"no port":             {func(o *traffic.Order) { o.Address = "172.18.200.10" }, of(address, "172.18.200.10")},
		"port 0":              {func(o *traffic.Order) { o.Address = "172.18.200.10:0" }, of(address, "172.18.200.10:0")},
		"a port that is none": {func(o *traffic.Order) { o.Address = "172.18.200.10:65536" }, of(address, "172.18.200.10:65536")},
		"no host":             {func(o *traffic.Order) { o.Address = ":8443" }, of(address, ":8443")},
		"a domain alone":      {func(o *traffic.Order) { o.Server = "spiffe://cluster1.com" }, of(server, "spiffe://cluster1.com")},
		"a path with dots":    {func(o *traffic.Order) { o.Server = "spiffe://cluster1.com/a/../b" }, of(server, "spiffe://cluster1.com/a/../b")},
		"too often":           {func(o *traffic.Order) { o.Every = time.Millisecond }, "every is 1ms: want 10ms to 30s"},
		"too patient":         {func(o *traffic.Order) { o.Within = time.Minute }, "within is 1m0s: want 10ms to 30s"},
		"no connection":       {func(o *traffic.Order) { o.Connection = "" }, `connection is "": want one of ["fresh" "kept" "resumed"]`},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			test.change(&o)
			_, got, _ := strings.Cut(errorText(o.Check()), ": ")
			if got != test.want {
				t.Errorf("error is %s\nwant %s", got, test.want)
			}
		})
	}
	const all = `order "": name is "": want 1 to 200 printable characters without a slash
address is "": want host:port, such as 172.18.200.10:8443
server is "": want a SPIFFE ID with a path, such as spiffe://cluster1.com/fedlab/probe
every is 0s: want 10ms to 30s
within is 0s: want 10ms to 30s
connection is "": want one of ["fresh" "kept" "resumed"]`
	if got := errorText(traffic.Order{}.Check()); got != all {
		t.Errorf("error is\n%s\nwant\n%s", got, all)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
