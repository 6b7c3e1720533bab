package demo

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Values of the demo charts; their fields are those of each chart's
// values.schema.json.
type (
	quotesValues struct {
		Image          string       `json:"image"`
		SPIFFE         spiffeValue  `json:"spiffe"`
		AllowedClients []string     `json:"allowedClients"`
		Service        serviceValue `json:"service"`
	}
	brokerValues struct {
		Image   string      `json:"image"`
		SPIFFE  spiffeValue `json:"spiffe"`
		Quotes  peer        `json:"quotes"`
		Service servicePort `json:"service"`
	}
	frontendValues struct {
		Image   string      `json:"image"`
		SPIFFE  spiffeValue `json:"spiffe"`
		Calls   []callValue `json:"calls"`
		Service servicePort `json:"service"`
	}
	dataValues struct {
		Image           string        `json:"image"`
		SPIFFE          spiffeValue   `json:"spiffe"`
		Version         string        `json:"version"`
		Allowed         allowedValue  `json:"allowed"`
		RawTrustDomains []string      `json:"rawTrustDomains"`
		Database        databaseValue `json:"database"`
		Legacy          *legacyValue  `json:"legacy,omitempty"`
		Service         serviceValue  `json:"service"`
	}
	bridgeValues struct {
		Image      string        `json:"image"`
		SPIFFE     spiffeValue   `json:"spiffe"`
		Datacenter string        `json:"datacenter"`
		System     string        `json:"system"`
		Allowed    allowedValue  `json:"allowed"`
		Database   databaseValue `json:"database"`
		Calls      []callValue   `json:"calls"`
		Service    serviceValue  `json:"service"`
	}
	gatewayValues struct {
		Image       string       `json:"image"`
		SPIFFE      spiffeValue  `json:"spiffe"`
		GatewayType string       `json:"gatewayType"`
		Region      string       `json:"region"`
		Allowed     allowedValue `json:"allowed"`
		Upstreams   []callValue  `json:"upstreams"`
		// Issuers are those of the JWT-SVIDs of callers, by trust domain.
		Issuers map[string]string `json:"issuers"`
		Service serviceValue      `json:"service"`
	}
	namedValues struct {
		Image   string       `json:"image"`
		SPIFFE  spiffeValue  `json:"spiffe"`
		Name    string       `json:"name"`
		Allowed allowedValue `json:"allowed"`
		Calls   []callValue  `json:"calls"`
		Service serviceValue `json:"service"`
	}
	plainValues struct {
		Image      string        `json:"image"`
		Ghostunnel string        `json:"ghostunnel"`
		SPIFFE     spiffeValue   `json:"spiffe"`
		Name       string        `json:"name"`
		Allowed    plainAllowed  `json:"allowed"`
		Calls      []callValue   `json:"calls"`
		Tunnels    []tunnelValue `json:"tunnels"`
		Service    serviceValue  `json:"service"`
	}
	probeValues struct {
		Image               string       `json:"image"`
		SPIFFE              spiffeValue  `json:"spiffe"`
		AllowedTrustDomains []string     `json:"allowedTrustDomains"`
		Service             probeService `json:"service"`
	}

	serviceValue struct {
		Port    int    `json:"port"`
		Address string `json:"address"`
	}
	// spiffeValue says where the socket of the workload's agent is.
	spiffeValue struct {
		SocketDir string `json:"socketDir"`
	}
	// probeService has two ports, of which the chart knows the numbers.
	probeService struct {
		Address string `json:"address"`
	}
	servicePort struct {
		Port     int `json:"port"`
		NodePort int `json:"nodePort,omitempty"`
	}
	peer struct {
		Address string `json:"address"`
		ID      string `json:"id"`
	}
	allowedValue struct {
		TrustDomains []string `json:"trustDomains"`
		IDs          []string `json:"ids"`
		DatabaseIDs  []string `json:"databaseIDs,omitempty"`
	}
	plainAllowed struct {
		IDs []string `json:"ids"`
	}
	// tunnelValue leads from an address of the pod's own to one server.
	tunnelValue struct {
		Listen string `json:"listen"`
		Target string `json:"target"`
		Server string `json:"server"`
	}
	databaseValue struct {
		Address string `json:"address"`
		Name    string `json:"name"`
		User    string `json:"user"`
		Secret  string `json:"secret"`
		TLS     bool   `json:"tls,omitempty"`
	}
	// legacyValue is a database behind a bridge.
	legacyValue struct {
		URL    string `json:"url"`
		Bridge string `json:"bridge"`
		Secret string `json:"secret"`
	}
	callValue struct {
		Name    string                   `json:"name"`
		URL     string                   `json:"url"`
		Server  string                   `json:"server"`
		Profile topology.EndpointProfile `json:"profile,omitempty"`
		Expect  string                   `json:"expect,omitempty"`
		Token   bool                     `json:"token,omitempty"`
		Report  bool                     `json:"report,omitempty"`
	}
)

// gateway is the app that takes JWT-SVIDs.
const gateway = "api-gateway"

// firstTunnel is the port at which a program that knows nothing of SPIFFE finds the first of
// the servers that it calls; the others follow.
const firstTunnel = 9001

// notPermitted is the class, in the demo programs' words, of a call that the
// server refuses to an identity that it knows.
const notPermitted = "not-permitted"

// Values implements lab.Programs.
func (Catalogue) Values(w *topology.Workload, images map[string]string) (any, error) {
	image := images[w.App.Name]
	v := valuesOf{w}
	labels := w.PodLabels()
	switch w.App.Name {
	case "stock-quotes":
		return quotesValues{Image: image, SPIFFE: v.spiffe(), AllowedClients: v.allowed().IDs, Service: v.service()}, nil
	case "broker-webapp":
		broker := brokerValues{Image: image, SPIFFE: v.spiffe(), Service: v.page()}
		for _, to := range w.Calls {
			broker.Quotes = peer{Address: to.Port().String(), ID: to.ID.String()}
		}
		return broker, nil
	case "frontend":
		return frontendValues{Image: image, SPIFFE: v.spiffe(), Calls: v.frontendCalls(), Service: v.page()}, nil
	case "data-service":
		return dataValues{
			Image: image, SPIFFE: v.spiffe(), Version: labels["version"], Allowed: v.allowed(), RawTrustDomains: raw(w), Database: v.database(), Legacy: v.legacy(), Service: v.service(),
		}, nil
	case "legacy-bridge":
		bridge := bridgeValues{
			Image: image, SPIFFE: v.spiffe(), Datacenter: labels["datacenter"], System: labels["system"], Allowed: v.allowed(), Database: v.database(),
			Calls: []callValue{}, Service: v.service(),
		}
		for _, to := range w.Calls {
			if to.App.Name == "service" {
				bridge.Calls = append(bridge.Calls, v.health(to))
				continue
			}
			// Whom it asks for data may look into its database, as LEGACY_DB_URL of
			// the article's data service does.
			if id := to.ID.String(); !slices.Contains(bridge.Allowed.DatabaseIDs, id) {
				bridge.Allowed.DatabaseIDs = append(bridge.Allowed.DatabaseIDs, id)
			}
			bridge.Calls = append(bridge.Calls, v.call("raw records", to, "/api/process-data?type=raw"))
		}
		return bridge, nil
	case "api-gateway":
		gateway := gatewayValues{
			Image: image, SPIFFE: v.spiffe(), GatewayType: labels["gateway-type"], Region: labels["region"], Allowed: v.allowed(), Upstreams: []callValue{}, Issuers: v.issuers(), Service: v.service(),
		}
		for _, to := range w.Calls {
			gateway.Upstreams = append(gateway.Upstreams, v.call(to.Name, to, ""))
		}
		return gateway, nil
	case "service":
		named := namedValues{Image: image, SPIFFE: v.spiffe(), Name: w.Name, Allowed: v.allowed(), Calls: []callValue{}, Service: v.service()}
		for _, to := range w.Calls {
			named.Calls = append(append(named.Calls, v.health(to)), v.byToken(to)...)
		}
		return named, nil
	case "plain-service":
		plain := plainValues{
			Image: images[w.App.Name], Ghostunnel: images[topology.Ghostunnel], SPIFFE: v.spiffe(), Name: w.Name, Allowed: plainAllowed{v.allowed().IDs},
			Calls: []callValue{}, Tunnels: []tunnelValue{}, Service: v.service(),
		}
		for i, to := range w.Calls {
			at := fmt.Sprintf("127.0.0.1:%d", firstTunnel+i)
			call := v.health(to)
			call.URL = "http://" + at + "/api/health"
			plain.Calls = append(plain.Calls, call)
			plain.Tunnels = append(plain.Tunnels, tunnelValue{at, to.Port().String(), to.ID.String()})
		}
		return plain, nil
	case topology.Probe().Name:
		// Scenarios let the synthetic trust domain call, and take that away again:
		// who is not federated does not come as far as this list.
		return probeValues{
			Image: image, SPIFFE: v.spiffe(), AllowedTrustDomains: append(v.allowed().TrustDomains, topology.SyntheticTrustDomain),
			Service: probeService{Address: v.service().Address},
		}, nil
	}
	return nil, fmt.Errorf("no values are known for app %q", w.App.Name)
}

// OnHost implements lab.Programs: the variables are those that the chart of the app gives
// its container.
func (c Catalogue) OnHost(w *topology.Workload) (env map[string]string, health int, err error) {
	values, err := c.Values(w, nil)
	if err != nil {
		return nil, 0, err
	}
	env = map[string]string{"SPIFFE_ENDPOINT_SOCKET": "unix://" + spire.HostSocketDir + "/spire-agent.sock"}
	switch v := values.(type) {
	case quotesValues:
		env["QUOTES_ALLOW_CLIENTS"] = strings.Join(v.AllowedClients, ",")
		return env, 8091, nil
	case brokerValues:
		env["BROKER_QUOTES_ADDRESS"], env["BROKER_QUOTES_ID"] = v.Quotes.Address, v.Quotes.ID
		return env, w.App.Port, nil
	case namedValues:
		calls, err := json.Marshal(v.Calls)
		if err != nil {
			return nil, 0, err
		}
		env["SERVICE_NAME"], env["SERVICE_CALLS"] = v.Name, string(calls)
		env["ALLOWED_CLIENT_TRUST_DOMAINS"], env["ALLOWED_CLIENT_IDS"] = strings.Join(v.Allowed.TrustDomains, ","), strings.Join(v.Allowed.IDs, ",")
		return env, 8081, nil
	case probeValues:
		env["ALLOWED_CLIENT_TRUST_DOMAINS"] = strings.Join(v.AllowedTrustDomains, ",")
		return env, 8081, nil
	}
	return nil, 0, fmt.Errorf("app %q runs in a cluster alone", w.App.Name)
}

// valuesOf makes the parts of a workload's values.
type valuesOf struct{ *topology.Workload }

func (v valuesOf) spiffe() spiffeValue { return spiffeValue{spire.SocketDir(v.Member)} }

func (v valuesOf) service() serviceValue {
	return serviceValue{Port: v.App.Port, Address: v.Address.String()}
}

func (v valuesOf) page() servicePort {
	page := servicePort{Port: v.App.Port}
	if v.Expose.IsValid() { // only in a cluster
		page.NodePort = v.Cluster().Ports()[v.Expose]
	}
	return page
}

func (v valuesOf) database() databaseValue {
	d := v.Database()
	return databaseValue{Address: d.Release + ":5432", Name: d.Name, User: d.User, Secret: d.Secret(), TLS: !d.ID.IsZero()}
}

// legacy is the database that is lent to the workload; nil for none.
func (v valuesOf) legacy() *legacyValue {
	from := v.Lender()
	if from == nil {
		return nil
	}
	d := from.Database()
	at := netip.AddrPortFrom(from.Address, topology.DatabasePort)
	return &legacyValue{URL: fmt.Sprintf("postgres://%s@%s/%s", d.User, at, d.Name), Bridge: from.ID.String(), Secret: v.LentSecret()}
}

// allowed lets those in who call the workload; where nobody does, only itself.
func (v valuesOf) allowed() allowedValue {
	callers := v.Callers
	if len(callers) == 0 {
		callers = []*topology.Workload{v.Workload}
	}
	var a allowedValue
	for _, caller := range callers {
		// Replicas have one.
		if id := caller.ID.String(); !slices.Contains(a.IDs, id) {
			a.IDs = append(a.IDs, id)
		}
		if td := caller.Domain().String(); !slices.Contains(a.TrustDomains, td) {
			a.TrustDomains = append(a.TrustDomains, td)
		}
	}
	return a
}

// raw are the trust domains of the bridges that call a data service: legacy
// systems want raw records.
func raw(service *topology.Workload) []string {
	domains := []string{}
	for _, caller := range service.Callers {
		if td := caller.Domain().String(); caller.App.Name == "legacy-bridge" && !slices.Contains(domains, td) {
			domains = append(domains, td)
		}
	}
	return domains
}

// call is a call of the workload to a path of another.
func (v valuesOf) call(name string, to *topology.Workload, path string) callValue {
	c := callValue{Name: name, URL: "https://" + to.Port().String() + path, Server: to.ID.String()}
	if r := v.Domain().TrustIn(to.Domain()); r != nil {
		c.Profile = r.Profile
	}
	return c
}

// health is a call that shows no more than that the other one is there, and answers.
func (v valuesOf) health(to *topology.Workload) callValue {
	return v.call("health of "+to.Name, to, "/api/health")
}

// byToken is a call of a gateway in another trust domain, with a JWT-SVID in place of the
// X509-SVID; none of who takes no JWT-SVIDs.
func (v valuesOf) byToken(to *topology.Workload) []callValue {
	if to.App.Name != gateway || to.Domain() == v.Domain() {
		return nil
	}
	c := v.call("health of "+to.Name+" with a JWT-SVID", to, "/api/health")
	c.Token = true
	return []callValue{c}
}

// issuers are what the JWT-SVIDs of callers say of who has issued them.
func (v valuesOf) issuers() map[string]string {
	issuers := map[string]string{}
	for _, caller := range v.Callers {
		if d := caller.Domain(); d.JWTIssuer != "" {
			issuers[d.String()] = d.JWTIssuer
		}
	}
	return issuers
}

// refusedCall asks a data service for the type of data that the workload's trust
// domain does not get: raw records, unless a bridge is of that domain, too.
func (v valuesOf) refusedCall(to *topology.Workload) callValue {
	c := v.call("raw records of "+to.Name, to, "/api/process-data?type=raw")
	if slices.Contains(raw(to), v.Domain().String()) {
		c = v.call("aggregates of "+to.Name, to, "/api/process-data?type=aggregated")
	}
	c.Expect = notPermitted
	return c
}

// frontendCalls are those that the frontend's page shows: one of each kind that
// is answered, one that is refused, and what the others report.
func (v valuesOf) frontendCalls() []callValue {
	var calls []callValue
	through := false
	for _, to := range v.Calls {
		switch to.App.Name {
		case "data-service":
			calls = append(calls, v.call("orders of "+to.Name, to, "/api/process-data"), v.refusedCall(to))
			if to.Lender() != nil {
				calls = append(calls, v.call("ledger through "+to.Name, to, "/api/legacy-data"))
			}
		case "legacy-bridge":
			calls = append(calls, v.call("ledger of "+to.Name, to, "/api/legacy-data"))
		case "api-gateway":
			if own := to.Cluster() == v.Cluster(); own && !through {
				for _, behind := range to.Calls {
					if behind.App.Name == "data-service" {
						through = true
						calls = append(calls, v.call("orders through "+to.Name, to, "/"+behind.Name+"/api/process-data"))
					}
				}
			}
		}
		if to.App.Name != "data-service" {
			told := v.call("calls of "+to.Name, to, "/api/calls")
			told.Report = true
			calls = append(calls, told)
		}
		calls = append(calls, v.byToken(to)...)
	}
	return calls
}
