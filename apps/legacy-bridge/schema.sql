create table if not exists ledger (
  entry        bigint    primary key,
  account      char(8)   not null,
  booked_on    date      not null,
  narrative    char(24)  not null,
  amount_cents bigint    not null
);

create index if not exists ledger_by_account on ledger (account);
